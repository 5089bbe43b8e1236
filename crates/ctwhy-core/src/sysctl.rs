//! The knobs of `net.netfilter.nf_conntrack_*` that decide about packets, with the defaults of Linux 6.18.

/// Timeouts in seconds and switches, named as under `/proc/sys/net/netfilter` without `nf_conntrack_`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the documentation: each is the sysctl of that name.
pub struct Sysctls {
    pub checksum: bool,
    pub acct: bool,
    pub generic_timeout: u32,
    pub icmp_timeout: u32,
    pub icmpv6_timeout: u32,
    pub udp_timeout: u32,
    pub udp_timeout_stream: u32,
    pub tcp_loose: bool,
    pub tcp_be_liberal: bool,
    pub tcp_ignore_invalid_rst: bool,
    pub tcp_max_retrans: u8,
    pub tcp_timeout_syn_sent: u32,
    pub tcp_timeout_syn_recv: u32,
    pub tcp_timeout_established: u32,
    pub tcp_timeout_fin_wait: u32,
    pub tcp_timeout_close_wait: u32,
    pub tcp_timeout_last_ack: u32,
    pub tcp_timeout_time_wait: u32,
    pub tcp_timeout_close: u32,
    pub tcp_timeout_max_retrans: u32,
    pub tcp_timeout_unacknowledged: u32,
}

impl Default for Sysctls {
    fn default() -> Self {
        Sysctls {
            checksum: true,
            acct: false,
            generic_timeout: 600,
            icmp_timeout: 30,
            icmpv6_timeout: 30,
            udp_timeout: 30,
            udp_timeout_stream: 120,
            tcp_loose: true,
            tcp_be_liberal: false,
            tcp_ignore_invalid_rst: false,
            tcp_max_retrans: 3,
            tcp_timeout_syn_sent: 120,
            tcp_timeout_syn_recv: 60,
            tcp_timeout_established: 432_000,
            tcp_timeout_fin_wait: 120,
            tcp_timeout_close_wait: 60,
            tcp_timeout_last_ack: 30,
            tcp_timeout_time_wait: 120,
            tcp_timeout_close: 10,
            tcp_timeout_max_retrans: 300,
            tcp_timeout_unacknowledged: 300,
        }
    }
}

/// Why a sysctl could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlError {
    /// No sysctl of that name decides about a packet here.
    Unknown,
    /// The value is not a number in the range of that sysctl.
    Value,
}

impl Sysctls {
    /// Every name that [`Sysctls::set`] takes, in its short form.
    pub const NAMES: [&'static str; 21] = [
        "nf_conntrack_checksum",
        "nf_conntrack_acct",
        "nf_conntrack_generic_timeout",
        "nf_conntrack_icmp_timeout",
        "nf_conntrack_icmpv6_timeout",
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
        "nf_conntrack_tcp_loose",
        "nf_conntrack_tcp_be_liberal",
        "nf_conntrack_tcp_ignore_invalid_rst",
        "nf_conntrack_tcp_max_retrans",
        "nf_conntrack_tcp_timeout_syn_sent",
        "nf_conntrack_tcp_timeout_syn_recv",
        "nf_conntrack_tcp_timeout_established",
        "nf_conntrack_tcp_timeout_fin_wait",
        "nf_conntrack_tcp_timeout_close_wait",
        "nf_conntrack_tcp_timeout_last_ack",
        "nf_conntrack_tcp_timeout_time_wait",
        "nf_conntrack_tcp_timeout_close",
        "nf_conntrack_tcp_timeout_max_retrans",
        "nf_conntrack_tcp_timeout_unacknowledged",
    ];

    /// Sets one by name: `nf_conntrack_udp_timeout`, with or without `net.netfilter.` in front.
    ///
    /// # Errors
    /// [`SysctlError`] when the name or the value is not one of this engine's.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        let name = name.strip_prefix("net.netfilter.").unwrap_or(name);
        let name = name.strip_prefix("nf_conntrack_").ok_or(SysctlError::Unknown)?;
        let switch = |to: &mut bool| match value {
            "0" => Ok(*to = false),
            "1" => Ok(*to = true),
            _ => Err(SysctlError::Value),
        };
        let seconds = |to: &mut u32| value.parse().map(|v| *to = v).map_err(|_| SysctlError::Value);
        match name {
            "checksum" => switch(&mut self.checksum),
            "acct" => switch(&mut self.acct),
            "generic_timeout" => seconds(&mut self.generic_timeout),
            "icmp_timeout" => seconds(&mut self.icmp_timeout),
            "icmpv6_timeout" => seconds(&mut self.icmpv6_timeout),
            "udp_timeout" => seconds(&mut self.udp_timeout),
            "udp_timeout_stream" => seconds(&mut self.udp_timeout_stream),
            "tcp_loose" => switch(&mut self.tcp_loose),
            "tcp_be_liberal" => switch(&mut self.tcp_be_liberal),
            "tcp_ignore_invalid_rst" => switch(&mut self.tcp_ignore_invalid_rst),
            "tcp_max_retrans" => value.parse().map(|v| self.tcp_max_retrans = v).map_err(|_| SysctlError::Value),
            "tcp_timeout_syn_sent" => seconds(&mut self.tcp_timeout_syn_sent),
            "tcp_timeout_syn_recv" => seconds(&mut self.tcp_timeout_syn_recv),
            "tcp_timeout_established" => seconds(&mut self.tcp_timeout_established),
            "tcp_timeout_fin_wait" => seconds(&mut self.tcp_timeout_fin_wait),
            "tcp_timeout_close_wait" => seconds(&mut self.tcp_timeout_close_wait),
            "tcp_timeout_last_ack" => seconds(&mut self.tcp_timeout_last_ack),
            "tcp_timeout_time_wait" => seconds(&mut self.tcp_timeout_time_wait),
            "tcp_timeout_close" => seconds(&mut self.tcp_timeout_close),
            "tcp_timeout_max_retrans" => seconds(&mut self.tcp_timeout_max_retrans),
            "tcp_timeout_unacknowledged" => seconds(&mut self.tcp_timeout_unacknowledged),
            _ => Err(SysctlError::Unknown),
        }
    }
}
