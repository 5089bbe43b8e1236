//! The knobs of `net.netfilter.nf_conntrack_*` and `net.ipv4.ipfrag_*` that decide about packets, with the defaults of
//! Linux 6.18.

use core::num::NonZeroU32;

/// Timeouts in seconds, switches and bytes, named as under `/proc/sys/net/netfilter` without `nf_conntrack_`, or as under
/// `/proc/sys/net/ipv4`.
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
    pub gre_timeout: u32,
    pub gre_timeout_stream: u32,
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
    pub sctp_timeout_closed: u32,
    pub sctp_timeout_cookie_wait: u32,
    pub sctp_timeout_cookie_echoed: u32,
    pub sctp_timeout_established: u32,
    pub sctp_timeout_shutdown_sent: u32,
    pub sctp_timeout_shutdown_recd: u32,
    pub sctp_timeout_shutdown_ack_sent: u32,
    pub sctp_timeout_heartbeat_sent: u32,
    pub frag6_timeout: u32,
    pub frag6_high_thresh: u32,
    pub ipfrag_time: u32,
    pub ipfrag_high_thresh: u32,
    pub ipfrag_max_dist: u32,
    /// How many entries there may be (`nf_conntrack_max`); `None` for as many as come. The kernel's default depends on
    /// how much memory there is. One value is for the whole machine, so it has no name among those that are set by name.
    pub table_limit: Option<NonZeroU32>,
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
            gre_timeout: 30,
            gre_timeout_stream: 180,
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
            sctp_timeout_closed: 10,
            sctp_timeout_cookie_wait: 3,
            sctp_timeout_cookie_echoed: 3,
            sctp_timeout_established: 210,
            sctp_timeout_shutdown_sent: 3,
            sctp_timeout_shutdown_recd: 3,
            sctp_timeout_shutdown_ack_sent: 3,
            sctp_timeout_heartbeat_sent: 30,
            frag6_timeout: 60,
            frag6_high_thresh: 4 << 20,
            ipfrag_time: 30,
            ipfrag_high_thresh: 4 << 20,
            ipfrag_max_dist: 64,
            table_limit: None,
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
    pub const NAMES: [&'static str; 36] = [
        "nf_conntrack_checksum",
        "nf_conntrack_acct",
        "nf_conntrack_generic_timeout",
        "nf_conntrack_icmp_timeout",
        "nf_conntrack_icmpv6_timeout",
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
        "nf_conntrack_gre_timeout",
        "nf_conntrack_gre_timeout_stream",
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
        "nf_conntrack_sctp_timeout_closed",
        "nf_conntrack_sctp_timeout_cookie_wait",
        "nf_conntrack_sctp_timeout_cookie_echoed",
        "nf_conntrack_sctp_timeout_established",
        "nf_conntrack_sctp_timeout_shutdown_sent",
        "nf_conntrack_sctp_timeout_shutdown_recd",
        "nf_conntrack_sctp_timeout_shutdown_ack_sent",
        "nf_conntrack_sctp_timeout_heartbeat_sent",
        "nf_conntrack_frag6_timeout",
        "nf_conntrack_frag6_high_thresh",
        "ipfrag_time",
        "ipfrag_high_thresh",
        "ipfrag_max_dist",
    ];

    /// Sets one by name: `nf_conntrack_udp_timeout`, with or without `net.netfilter.` in front; `ipfrag_time`, with or
    /// without `net.ipv4.`.
    ///
    /// # Errors
    /// [`SysctlError`] when the name or the value is not one of this engine's.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        let conntrack = name.strip_prefix("net.netfilter.").unwrap_or(name).strip_prefix("nf_conntrack_");
        let ipfrag = name.strip_prefix("net.ipv4.").unwrap_or(name);
        let name = conntrack.or(ipfrag.starts_with("ipfrag_").then_some(ipfrag)).ok_or(SysctlError::Unknown)?;
        match self.knob(name).ok_or(SysctlError::Unknown)? {
            Knob::Switch(switch) => match value {
                "0" => *switch = false,
                "1" => *switch = true,
                _ => return Err(SysctlError::Value),
            },
            Knob::Seconds(number) | Knob::Amount(number) => *number = value.parse().map_err(|_| SysctlError::Value)?,
            Knob::Count(count) => *count = value.parse().map_err(|_| SysctlError::Value)?,
        }
        Ok(())
    }

    fn knob(&mut self, name: &str) -> Option<Knob<'_>> {
        Some(match name {
            "checksum" => Knob::Switch(&mut self.checksum),
            "acct" => Knob::Switch(&mut self.acct),
            "generic_timeout" => Knob::Seconds(&mut self.generic_timeout),
            "icmp_timeout" => Knob::Seconds(&mut self.icmp_timeout),
            "icmpv6_timeout" => Knob::Seconds(&mut self.icmpv6_timeout),
            "udp_timeout" => Knob::Seconds(&mut self.udp_timeout),
            "udp_timeout_stream" => Knob::Seconds(&mut self.udp_timeout_stream),
            "gre_timeout" => Knob::Seconds(&mut self.gre_timeout),
            "gre_timeout_stream" => Knob::Seconds(&mut self.gre_timeout_stream),
            "tcp_loose" => Knob::Switch(&mut self.tcp_loose),
            "tcp_be_liberal" => Knob::Switch(&mut self.tcp_be_liberal),
            "tcp_ignore_invalid_rst" => Knob::Switch(&mut self.tcp_ignore_invalid_rst),
            "tcp_max_retrans" => Knob::Count(&mut self.tcp_max_retrans),
            "tcp_timeout_syn_sent" => Knob::Seconds(&mut self.tcp_timeout_syn_sent),
            "tcp_timeout_syn_recv" => Knob::Seconds(&mut self.tcp_timeout_syn_recv),
            "tcp_timeout_established" => Knob::Seconds(&mut self.tcp_timeout_established),
            "tcp_timeout_fin_wait" => Knob::Seconds(&mut self.tcp_timeout_fin_wait),
            "tcp_timeout_close_wait" => Knob::Seconds(&mut self.tcp_timeout_close_wait),
            "tcp_timeout_last_ack" => Knob::Seconds(&mut self.tcp_timeout_last_ack),
            "tcp_timeout_time_wait" => Knob::Seconds(&mut self.tcp_timeout_time_wait),
            "tcp_timeout_close" => Knob::Seconds(&mut self.tcp_timeout_close),
            "tcp_timeout_max_retrans" => Knob::Seconds(&mut self.tcp_timeout_max_retrans),
            "tcp_timeout_unacknowledged" => Knob::Seconds(&mut self.tcp_timeout_unacknowledged),
            "sctp_timeout_closed" => Knob::Seconds(&mut self.sctp_timeout_closed),
            "sctp_timeout_cookie_wait" => Knob::Seconds(&mut self.sctp_timeout_cookie_wait),
            "sctp_timeout_cookie_echoed" => Knob::Seconds(&mut self.sctp_timeout_cookie_echoed),
            "sctp_timeout_established" => Knob::Seconds(&mut self.sctp_timeout_established),
            "sctp_timeout_shutdown_sent" => Knob::Seconds(&mut self.sctp_timeout_shutdown_sent),
            "sctp_timeout_shutdown_recd" => Knob::Seconds(&mut self.sctp_timeout_shutdown_recd),
            "sctp_timeout_shutdown_ack_sent" => Knob::Seconds(&mut self.sctp_timeout_shutdown_ack_sent),
            "sctp_timeout_heartbeat_sent" => Knob::Seconds(&mut self.sctp_timeout_heartbeat_sent),
            "frag6_timeout" => Knob::Seconds(&mut self.frag6_timeout),
            "frag6_high_thresh" => Knob::Amount(&mut self.frag6_high_thresh),
            "ipfrag_time" => Knob::Seconds(&mut self.ipfrag_time),
            "ipfrag_high_thresh" => Knob::Amount(&mut self.ipfrag_high_thresh),
            "ipfrag_max_dist" => Knob::Amount(&mut self.ipfrag_max_dist),
            _ => return None,
        })
    }
}

/// A sysctl to be set.
enum Knob<'a> {
    Switch(&'a mut bool),
    Seconds(&'a mut u32),
    Amount(&'a mut u32),
    Count(&'a mut u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_can_be_set_in_both_forms_and_changes_something() {
        for name in Sysctls::NAMES {
            let mut short = Sysctls::default();
            let value = if short.set(name, "7") == Ok(()) { "7" } else { "0" };
            let defaults = Sysctls { acct: true, ..Sysctls::default() };
            short = defaults.clone();
            assert_eq!(short.set(name, value), Ok(()), "{name}");
            let liberal = ["nf_conntrack_tcp_be_liberal", "nf_conntrack_tcp_ignore_invalid_rst"];
            if liberal.contains(&name) {
                assert_eq!(short.set(name, "1"), Ok(()));
            }
            assert_ne!(short, defaults, "{name}");
            let mut long = defaults.clone();
            let family = if name.starts_with("ipfrag_") { "ipv4" } else { "netfilter" };
            let full = alloc::format!("net.{family}.{name}");
            assert_eq!(long.set(&full, "yes"), Err(SysctlError::Value), "{name}");
        }
        assert_eq!(Sysctls::default().set("nf_conntrack_max", "1"), Err(SysctlError::Unknown));
        assert_eq!(Sysctls::default().set("udp_timeout", "1"), Err(SysctlError::Unknown));
    }
}
