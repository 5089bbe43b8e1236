//! What the kernel counts about its table (`struct ip_conntrack_stat`, `/proc/net/stat/nf_conntrack`; catalogue OBS-09).

/// How often what happened since the table began. A packet that is INVALID is in exactly one of `invalid` and
/// `icmp_error`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that moved to the entry of another one, or got one for answers only, when they were confirmed.
    pub clash_resolve: u64,
    /// Tuples that NAT wanted and another flow held.
    pub found: u64,
    /// Packets that are INVALID, but for what is in `icmp_error`.
    pub invalid: u64,
    /// Entries that could not be confirmed.
    pub insert_failed: u64,
    /// Packets that conntrack dropped.
    pub drop: u64,
    /// Entries that went so that a full table had room for others.
    pub early_drop: u64,
    /// ICMP and ICMPv6 messages that their error handler refused, among them errors about unknown flows.
    pub icmp_error: u64,
    /// Flows that had been expected when they came.
    pub expect_new: u64,
    /// Expectations that were made.
    pub expect_create: u64,
    /// Expectations that are gone: they came true, were taken back or replaced, were too many or too old, or lost their
    /// master.
    pub expect_delete: u64,
}

impl Counters {
    /// Nothing happened yet.
    #[must_use]
    pub const fn new() -> Counters {
        Counters {
            clash_resolve: 0,
            found: 0,
            invalid: 0,
            insert_failed: 0,
            drop: 0,
            early_drop: 0,
            icmp_error: 0,
            expect_new: 0,
            expect_create: 0,
            expect_delete: 0,
        }
    }

    /// Each counter by its name in `conntrack -S`, `clash_resolve` for `clashres`.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("clash_resolve", self.clash_resolve),
            ("found", self.found),
            ("invalid", self.invalid),
            ("insert_failed", self.insert_failed),
            ("drop", self.drop),
            ("early_drop", self.early_drop),
            ("icmp_error", self.icmp_error),
            ("expect_new", self.expect_new),
            ("expect_create", self.expect_create),
            ("expect_delete", self.expect_delete),
        ]
    }
}
