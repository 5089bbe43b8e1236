//! Which timeout an accepted packet gives its entry (catalogue E.7).

use super::segment::Index;
use super::table::TcpState;
use super::trace::TimeoutCause;
use super::{Tcp, side_flag};
use crate::profile::Profile;
use crate::sysctl::Sysctls;

/// The timeout of a state in seconds.
///
/// NONE has the one of SYN_SENT's compiled-in default, and SYN_SENT2 has no sysctl either.
#[must_use]
pub const fn of_state(sysctls: &Sysctls, state: TcpState) -> u32 {
    match state {
        TcpState::None | TcpState::SynSent2 => 120,
        TcpState::SynSent => sysctls.tcp_timeout_syn_sent,
        TcpState::SynRecv => sysctls.tcp_timeout_syn_recv,
        TcpState::Established => sysctls.tcp_timeout_established,
        TcpState::FinWait => sysctls.tcp_timeout_fin_wait,
        TcpState::CloseWait => sysctls.tcp_timeout_close_wait,
        TcpState::LastAck => sysctls.tcp_timeout_last_ack,
        TcpState::TimeWait => sysctls.tcp_timeout_time_wait,
        TcpState::Close => sysctls.tcp_timeout_close,
    }
}

impl Tcp {
    /// The timeout after an accepted packet of kind `index`, in seconds, and why. The first rule that fits decides.
    pub(super) fn timeout(&self, index: Index, sysctls: &Sysctls, kernel: &Profile) -> (u32, TimeoutCause) {
        let of_state = of_state(sysctls, self.state);
        let is_shorter = |timeout: u32| timeout < of_state;
        let unacknowledged = self.sides.iter().any(|side| side.has(side_flag::DATA_UNACKNOWLEDGED));
        if self.retrans >= sysctls.tcp_max_retrans && is_shorter(sysctls.tcp_timeout_max_retrans) {
            (sysctls.tcp_timeout_max_retrans, TimeoutCause::Retransmissions { times: self.retrans })
        } else if index == Index::Rst && !kernel.open_rst_unacknowledged {
            (sysctls.tcp_timeout_close, TimeoutCause::Rst)
        } else if index == Index::Rst
            && self.state == TcpState::Established
            && is_shorter(sysctls.tcp_timeout_unacknowledged)
        {
            (sysctls.tcp_timeout_unacknowledged, TimeoutCause::OpenRst)
        } else if unacknowledged && is_shorter(sysctls.tcp_timeout_unacknowledged) {
            (sysctls.tcp_timeout_unacknowledged, TimeoutCause::Unacknowledged)
        } else if self.last_win == 0 && is_shorter(sysctls.tcp_timeout_max_retrans) {
            (sysctls.tcp_timeout_max_retrans, TimeoutCause::ZeroWindow)
        } else {
            (of_state, TimeoutCause::State(self.state))
        }
    }
}
