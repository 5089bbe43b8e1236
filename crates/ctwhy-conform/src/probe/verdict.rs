//! What the evidence says, and what it does not.

use std::net::IpAddr;

use ctwhy_linux::probe::{Method, Quote};

use super::claim::{Claim, Confidence, hops, list, noun};
use super::evidence::{Evidence, Outcome, Sized, is_too_big};

/// A claim with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is claimed.
    pub claim: Claim,
    /// How surely.
    pub confidence: Confidence,
    /// Why.
    pub because: Vec<String>,
}

/// All that can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The most important first.
    pub findings: Vec<Finding>,
    /// What cannot be told from here.
    pub open: Vec<String>,
}

impl Verdict {
    /// Is anything wrong with a NAT on the way, as far as one can tell?
    #[must_use]
    pub fn is_amiss(&self) -> bool {
        self.findings.iter().any(|finding| finding.claim.is_amiss())
    }

    fn claim(&mut self, claim: Claim, confidence: Confidence, because: Vec<String>) {
        self.findings.push(Finding { claim, confidence, because });
    }
}

/// Reasons about the evidence.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    for (method, why) in &evidence.unavailable {
        verdict.open.push(format!("nothing about {}: {why}", noun(*method)));
    }
    if !evidence.outcomes().any(|(_, outcome)| outcome.is_answer()) {
        verdict.claim(
            Claim::NothingAnswers,
            Confidence::High,
            vec![format!("{} probes were sent", evidence.outcomes().count())],
        );
        verdict.open.push("whether a NAT swallows what comes back, or there is no way to the target at all".to_owned());
        return verdict;
    }
    let proxied = proxies(evidence, &mut verdict);
    made_up(evidence, &mut verdict);
    errors(evidence, &proxied, &mut verdict);
    quotes(evidence, &mut verdict);
    sizes(evidence, &proxied, &mut verdict);
    if !evidence.raw {
        verdict.open.push("whether errors arrive that no socket gets (that takes CAP_NET_RAW)".to_owned());
    }
    verdict
}

/// The methods by which the target answers before a packet can have come to it.
fn proxies(evidence: &Evidence, verdict: &mut Verdict) -> Vec<Method> {
    let used: Vec<Method> = Method::ALL.into_iter().filter(|method| evidence.used(*method)).collect();
    let reached: Vec<(Method, u8)> =
        used.iter().filter_map(|method| Some((*method, evidence.reached(*method)?))).collect();
    // A router at this TTL proves that the target lies farther away.
    let farthest_router = evidence.hops.iter().rev().find(|hop| hop.routers().any(|router| router != evidence.dest));
    let farther = farthest_router.map_or(0, |hop| hop.ttl).max(reached.iter().map(|(_, ttl)| *ttl).max().unwrap_or(0));
    let mut proxied = Vec::new();
    let mut because = Vec::new();
    for (method, ttl) in &reached {
        let router_behind = farthest_router.is_some_and(|hop| hop.ttl >= *ttl);
        // Ways of different protocols may differ by a hop; a router behind the answer is no such chance.
        let too_near = router_behind || farther > ttl.saturating_add(1) || (*ttl == 1 && farther > 1);
        if too_near && !evidence.on_link {
            because.push(match farthest_router.filter(|_| router_behind) {
                Some(hop) => {
                    format!(
                        "{} with TTL {ttl} is answered in the target's name, but at TTL {} there is still a router",
                        noun(*method),
                        hop.ttl
                    )
                }
                None => {
                    format!("{} with TTL {ttl} is answered in the target's name, others need {farther}", noun(*method))
                }
            });
            proxied.push(*method);
        }
    }
    if evidence.on_link || reached.is_empty() {
        return proxied;
    }
    let all_at_once = reached.iter().all(|(_, ttl)| *ttl == 1);
    let nobody_answers =
        evidence.to_nowhere.iter().any(|(_, outcome)| matches!(outcome, Outcome::Reply { .. } | Outcome::Connected));
    // Nothing tells a distance, but it is not believable that a target behind a gateway is reached with TTL 1 by some
    // methods and by others never.
    let never: Vec<Method> = used.iter().copied().filter(|method| evidence.reached(*method).is_none()).collect();
    if proxied.is_empty() && all_at_once {
        let first: Vec<Method> = reached.iter().map(|(method, _)| *method).collect();
        because.push(format!(
            "{} with TTL 1 is answered in the target's name, which is in no network of this host's",
            list(&first, "and")
        ));
        if !never.is_empty() || nobody_answers {
            if !never.is_empty() {
                because.push(format!("{} never reaches it", list(&never, "and")));
            }
            let confidence = if nobody_answers { Confidence::High } else { Confidence::Medium };
            verdict.claim(Claim::Proxy(first.clone()), confidence, because);
            return first;
        }
        verdict.claim(Claim::NextHostOrProxy, Confidence::High, because);
        verdict.open.push(
            "whether the target is the next host or a proxy answers for it: ask for one that is farther away"
                .to_owned(),
        );
        return proxied;
    }
    if !proxied.is_empty() {
        because.extend(reset_ttl(evidence, farther));
        verdict.claim(Claim::Proxy(proxied.clone()), Confidence::High, because);
    }
    proxied
}

/// Replies from far away that look as if nobody had forwarded them.
fn reset_ttl(evidence: &Evidence, distance: u8) -> Option<String> {
    if distance < 3 || evidence.on_link {
        return None;
    }
    let ttl = evidence.hops.iter().find_map(|hop| match hop.by(Method::Echo)? {
        Outcome::Reply { ttl } => *ttl,
        _ => None,
    })?;
    matches!(ttl, 64 | 128 | 255).then(|| {
        format!("echo replies arrive with TTL {ttl}, as if no router lay between; the target is {distance} hops away")
    })
}

fn made_up(evidence: &Evidence, verdict: &mut Verdict) {
    for (method, outcome) in &evidence.to_nowhere {
        let claim = match outcome {
            Outcome::Reply { .. } if *method == Method::Echo => Claim::EchoMadeUp,
            Outcome::Connected => Claim::ConnectionsMadeUp,
            _ => continue,
        };
        verdict.claim(claim, Confidence::High, vec![format!("{} answers {}", evidence.nowhere, noun(*method))]);
    }
}

/// Do errors come through, and from how far?
fn errors(evidence: &Evidence, proxied: &[Method], verdict: &mut Verdict) {
    let heard: Vec<(Method, IpAddr)> =
        evidence.outcomes().filter_map(|(method, outcome)| Some((method, outcome.error()?.from?))).collect();
    let first_hop: Vec<IpAddr> =
        evidence.hops.first().into_iter().flat_map(|hop| hop.routers().collect::<Vec<_>>()).collect();
    let mut beyond: Vec<IpAddr> =
        heard.iter().map(|(_, from)| *from).filter(|from| !first_hop.contains(from)).collect();
    beyond.sort_unstable();
    beyond.dedup();
    if heard.is_empty() {
        return no_errors(evidence, proxied, verdict);
    }
    let reached_by_ttl = Method::ALL
        .iter()
        .filter(|method| !proxied.contains(method))
        .filter_map(|method| evidence.reached(*method))
        .min();
    if beyond.is_empty() {
        let owed = owed(evidence, proxied);
        // The target may be the host behind the first hop and have nothing to complain about.
        if reached_by_ttl.is_some_and(|ttl| ttl <= 2) && owed.len() <= 1 {
            verdict.open.push("whether errors from farther away come through: the target is the next host but one, and complains about nothing".to_owned());
        } else {
            let confidence = if owed.len() > 2 { Confidence::Medium } else { Confidence::Low };
            verdict.claim(Claim::OnlyTheFirstHop, confidence, owed);
            verdict.open.push(
                "whether every router and the target stay silent on purpose: then it would look the same".to_owned(),
            );
        }
        return;
    }
    let senders: Vec<String> = beyond.iter().take(8).map(ToString::to_string).collect();
    verdict.claim(Claim::ErrorsComeThrough, Confidence::High, vec![format!("errors came from {}", senders.join(", "))]);
    not_about(evidence, proxied, &heard, verdict);
    silent_places(evidence, proxied, verdict);
}

/// What should have made an error and did not, a sentence each.
fn owed(evidence: &Evidence, proxied: &[Method]) -> Vec<String> {
    let mut owed = Vec::new();
    for method in Method::ALL.into_iter().filter(|method| !proxied.contains(method)) {
        let silent: Vec<u8> = evidence
            .hops
            .iter()
            .filter(|hop| matches!(hop.by(method), Some(Outcome::Silent { .. })))
            .map(|hop| hop.ttl)
            .collect();
        if !silent.is_empty() {
            owed.push(format!("{} that used up its TTL: silence at {}", noun(method), hops(&silent)));
        }
    }
    for (method, outcome) in &evidence.closed {
        if *method == Method::Udp && matches!(outcome, Outcome::Silent { .. }) {
            owed.push("UDP to a closed port of the target: silence".to_owned());
        }
    }
    let silent = |(_, outcome): &&(Method, Outcome)| matches!(outcome, Outcome::Silent { .. });
    let unroutable: Vec<Method> = evidence.to_nowhere.iter().filter(silent).map(|(method, _)| *method).collect();
    if !unroutable.is_empty() {
        owed.push(format!("{} to {}, where there is nobody: silence", list(&unroutable, "and"), evidence.nowhere));
    }
    owed
}

fn no_errors(evidence: &Evidence, proxied: &[Method], verdict: &mut Verdict) {
    let mut because = owed(evidence, proxied);
    let distance = Method::ALL.iter().filter_map(|method| evidence.reached(*method)).max().unwrap_or(0);
    let reset = reset_ttl(evidence, distance);
    let sockets = !proxied.is_empty() || reset.is_some();
    because.extend(reset);
    // With TTL 1 even the first router has to speak; where the target is a neighbour nobody has to.
    let expected = because.len();
    if evidence.on_link || expected == 0 {
        verdict.open.push("whether errors come through: nothing that was sent had to make one".to_owned());
    } else if sockets {
        verdict.claim(Claim::SocketNatSwallowsErrors, Confidence::High, because);
    } else {
        let confidence = if expected > 2 { Confidence::Medium } else { Confidence::Low };
        verdict.claim(Claim::NoErrors, confidence, because);
        verdict
            .open
            .push("whether every router and the target stay silent on purpose: then it would look the same".to_owned());
    }
}

/// Errors about one kind of packet and not about another.
fn not_about(evidence: &Evidence, proxied: &[Method], heard: &[(Method, IpAddr)], verdict: &mut Verdict) {
    for method in Method::ALL {
        if proxied.contains(&method) || !evidence.used(method) || heard.iter().any(|(by, _)| *by == method) {
            continue;
        }
        // Where a router told one method and never the other.
        let places: Vec<u8> = evidence
            .hops
            .iter()
            .filter(|hop| matches!(hop.by(method), Some(Outcome::Silent { .. })) && hop.routers().next().is_some())
            .map(|hop| hop.ttl)
            .collect();
        if !places.is_empty() {
            let because = vec![format!("at {} a router answers others, {} never", hops(&places), noun(method))];
            let confidence = if places.len() > 1 { Confidence::High } else { Confidence::Medium };
            verdict.claim(Claim::NotAbout(method), confidence, because);
        }
    }
}

/// TTLs that nobody answers, and a target that does not.
fn silent_places(evidence: &Evidence, proxied: &[Method], verdict: &mut Verdict) {
    let honest: Vec<Method> =
        Method::ALL.into_iter().filter(|method| evidence.used(*method) && !proxied.contains(method)).collect();
    let last = evidence.hops.iter().rev().find(|hop| honest.iter().any(|m| hop.by(*m).is_some_and(Outcome::is_answer)));
    let Some(last) = last.map(|hop| hop.ttl) else { return };
    let silent = |hop: &&super::evidence::Hop| {
        let mut asked = honest.iter().filter_map(|method| hop.by(*method)).peekable();
        asked.peek().is_some() && asked.all(|outcome| matches!(outcome, Outcome::Silent { .. }))
    };
    let ttls: Vec<u8> = evidence.hops.iter().filter(|hop| hop.ttl < last).filter(silent).map(|hop| hop.ttl).collect();
    if !ttls.is_empty() {
        let because = vec![format!(
            "{} with these TTLs: silence, but an error or answer from beyond arrived",
            list(&honest, "and")
        )];
        verdict.claim(Claim::SilentRouters(ttls), Confidence::High, because);
    }
    let routers = evidence.hops.iter().rev().find(|hop| hop.routers().next().is_some());
    let after = routers.map_or(0, |hop| hop.ttl);
    let unreached: Vec<Method> = honest.into_iter().filter(|method| evidence.reached(*method).is_none()).collect();
    if !unreached.is_empty() {
        let closed = evidence.closed.iter().find(|(method, _)| *method == Method::Udp).map(|(_, outcome)| outcome);
        let mut because = vec![format!("no answer of the target's to {}", list(&unreached, "or"))];
        if unreached.contains(&Method::Udp) && matches!(closed, Some(Outcome::Silent { .. })) {
            because.push("UDP to a closed port of the target: silence".to_owned());
        }
        verdict.claim(Claim::SilentEnd { after, methods: unreached }, Confidence::Medium, because);
    }
}

fn quotes(evidence: &Evidence, verdict: &mut Verdict) {
    let mut wrong = Vec::new();
    for crossing in &evidence.crossing {
        let told: Vec<u32> = crossing
            .quoted
            .iter()
            .filter_map(|quote| if let Quote::Tag(tag) = quote { Some(*tag) } else { None })
            .collect();
        let mut once = told.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() < told.len() {
            wrong.push(format!(
                "of {} datagrams in flight {} errors quote only {}",
                crossing.sent.len(),
                told.len(),
                once.len()
            ));
        } else if told.iter().any(|tag| !crossing.sent.contains(tag)) || crossing.quoted.contains(&Quote::Foreign) {
            wrong.push("an error quotes what this flow never sent".to_owned());
        }
    }
    if !wrong.is_empty() {
        verdict.claim(Claim::WrongQuote, Confidence::High, wrong);
    }
    if let Some(stray) = evidence.strays.first() {
        let because =
            vec![format!("type {} code {} about a packet to {}", stray.icmp_type, stray.code, stray.quoted_dst)];
        let names = (stray.quoted_src, stray.quoted_sport);
        let claim = Claim::QuoteNotTranslated { count: evidence.strays.len(), names };
        verdict.claim(claim, Confidence::High, because);
    }
}

/// Does path MTU discovery work?
fn sizes(evidence: &Evidence, proxied: &[Method], verdict: &mut Verdict) {
    for method in [Method::Echo, Method::Udp] {
        let of: Vec<&Sized> = evidence.sizes.iter().filter(|sized| sized.method == method).collect();
        let told = of.iter().filter_map(|sized| Some((sized.length, sized.outcome.error().filter(|e| is_too_big(e))?)));
        if let Some((length, error)) = told.max_by_key(|(length, _)| *length) {
            let least = if evidence.dest.is_ipv4() { 68 } else { 1280 };
            let helps = (least..length as u32).contains(&error.mtu);
            let claim = if helps { Claim::MtuTold(error.mtu) } else { Claim::MtuUseless(error.mtu) };
            let from = error.from.map_or_else(String::new, |from| format!(" from {from}"));
            verdict.claim(claim, Confidence::High, vec![format!("about {} of {length} bytes{from}", noun(method))]);
            continue;
        }
        let passes = of.iter().filter(|sized| sized.outcome.arrived(evidence.dest)).map(|sized| sized.length).max();
        let Some(passes) = passes else { continue };
        let vanishes = of
            .iter()
            .filter(|sized| sized.length > passes && matches!(sized.outcome, Outcome::Silent { .. }))
            .map(|sized| sized.length)
            .min();
        if let Some(vanishes) = vanishes {
            let because = vec![format!(
                "{} with DF: {passes} bytes are answered, {vanishes} never, and no error came",
                noun(method)
            )];
            verdict.claim(Claim::BlackHole { passes, vanishes }, Confidence::Medium, because);
            if !verdict.open.iter().any(|open| open.starts_with("who drops")) {
                verdict.open.push("who drops the long packets: a router that does not say so, or one whose error a NAT does not relay".to_owned());
            }
        } else if !proxied.contains(&method) {
            verdict.claim(Claim::NoNarrowLink(passes), Confidence::High, vec![format!("{} with DF", noun(method))]);
        }
    }
    // Said once is enough.
    let mut seen: Vec<Claim> = Vec::new();
    verdict.findings.retain(|finding| {
        let again = seen.contains(&finding.claim);
        seen.push(finding.claim.clone());
        !again
    });
}

#[cfg(test)]
mod tests {
    use super::super::evidence::{Crossing, Hop};
    use super::*;
    use ctwhy_linux::probe::IcmpError;

    const SILENT: Outcome = Outcome::Silent { tries: 2 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn error(from: &str, icmp_type: u8, code: u8) -> Outcome {
        Outcome::Error(IcmpError { from: Some(ip(from)), icmp_type, code, mtu: 0, quote: Quote::Short })
    }

    fn exceeded(hop: u8) -> Outcome {
        error(&format!("203.0.113.{hop}"), 11, 0)
    }

    fn reply(ttl: u8) -> Outcome {
        Outcome::Reply { ttl: Some(ttl) }
    }

    /// A target four hops away, with what each TTL brings by UDP, echo and TCP.
    fn evidence(hops: [[Outcome; 3]; 4]) -> Evidence {
        let hop = |(at, outcomes): (usize, [Outcome; 3])| Hop { ttl: at as u8 + 1, outcomes: outcomes.map(Some) };
        Evidence {
            dest: ip("192.0.2.80"),
            on_link: false,
            unavailable: Vec::new(),
            raw: true,
            hops: hops.into_iter().enumerate().map(hop).collect(),
            closed: vec![(Method::Udp, error("192.0.2.80", 3, 3)), (Method::Tcp, Outcome::Refused)],
            nowhere: ip("198.51.100.254"),
            to_nowhere: Method::ALL.map(|method| (method, SILENT)).into(),
            sizes: Vec::new(),
            crossing: Vec::new(),
            strays: Vec::new(),
        }
    }

    fn open_path() -> Evidence {
        let hop = |n| [exceeded(n), exceeded(n), exceeded(n)];
        evidence([hop(1), hop(2), hop(3), [error("192.0.2.80", 3, 3), reply(61), Outcome::Refused]])
    }

    fn codes(evidence: &Evidence) -> Vec<&'static str> {
        judge(evidence).findings.iter().map(|finding| finding.claim.code()).collect()
    }

    #[test]
    fn an_open_path() {
        assert_eq!(codes(&open_path()), ["errors.come_through"]);
        assert!(!judge(&open_path()).is_amiss());
    }

    #[test]
    fn silent_routers_are_no_nat_that_swallows() {
        let silent = || [SILENT, SILENT, SILENT];
        let end = || [error("192.0.2.80", 3, 3), reply(61), Outcome::Refused];
        let path = evidence([[exceeded(1), exceeded(1), exceeded(1)], silent(), silent(), end()]);
        assert_eq!(codes(&path), ["errors.come_through", "routers.silent"]);
        assert!(!judge(&path).is_amiss());
        // Not even the first router speaks, but the target does.
        let path = evidence([silent(), silent(), silent(), end()]);
        assert_eq!(codes(&path), ["errors.come_through", "routers.silent"]);
    }

    #[test]
    fn a_nat_of_sockets_that_swallows_errors() {
        // TCP ends at the NAT; the TTL of UDP and echo is passed on.
        let hop = || [SILENT, SILENT, Outcome::Connected];
        let mut swallowed = evidence([hop(), hop(), hop(), [SILENT, reply(61), Outcome::Connected]]);
        swallowed.closed[0].1 = SILENT;
        assert_eq!(codes(&swallowed), ["proxy", "errors.swallowed_by_socket_nat"]);
        let verdict = judge(&swallowed);
        assert_eq!(verdict.findings[1].confidence, Confidence::High);
        assert_eq!(verdict.findings[0].claim, Claim::Proxy(vec![Method::Tcp]));
    }

    #[test]
    fn a_nat_that_relays_no_error_but_makes_its_own() {
        let hop = || [SILENT, SILENT, SILENT];
        let first = [exceeded(1), exceeded(1), exceeded(1)];
        let mut swallowed = evidence([first, hop(), hop(), [SILENT, reply(61), Outcome::Refused]]);
        assert_eq!(codes(&swallowed), ["errors.come_through", "routers.silent", "target.silent"], "a closed port told");
        swallowed.closed[0].1 = SILENT;
        assert_eq!(codes(&swallowed), ["errors.first_hop_only"]);
        let verdict = judge(&swallowed);
        assert_eq!(verdict.findings[0].confidence, Confidence::Medium);
        assert!(!verdict.open.is_empty(), "silent routers would look the same");
    }

    #[test]
    fn a_proxy_before_a_router_and_made_up_answers() {
        let hop = |n| [exceeded(n), reply(255), Outcome::Connected];
        let mut proxied =
            evidence([hop(1), hop(2), hop(3), [error("192.0.2.80", 3, 3), reply(255), Outcome::Connected]]);
        assert_eq!(codes(&proxied), ["proxy", "errors.come_through"]);
        assert_eq!(judge(&proxied).findings[0].claim, Claim::Proxy(vec![Method::Echo, Method::Tcp]));
        proxied.to_nowhere = vec![(Method::Echo, reply(255)), (Method::Tcp, Outcome::Connected)];
        assert_eq!(codes(&proxied), ["proxy", "echo.made_up", "tcp.made_up", "errors.come_through"]);
    }

    #[test]
    fn a_target_next_door_proves_nothing() {
        let all = || [error("192.0.2.80", 3, 3), reply(64), Outcome::Refused];
        let mut near = evidence([all(), all(), all(), all()]);
        near.hops.truncate(1);
        assert_eq!(codes(&near), ["proxy.or_next_host", "errors.come_through"]);
        near.on_link = true;
        assert_eq!(codes(&near), ["errors.come_through"]);
        assert!(!judge(&near).is_amiss());
    }

    #[test]
    fn ways_of_different_length_are_no_proxy() {
        let mut path = open_path();
        path.hops[2] = Hop { ttl: 3, outcomes: [Some(SILENT), Some(reply(61)), Some(SILENT)] };
        assert!(!codes(&path).contains(&"proxy"), "one hop of difference may be chance");
    }

    #[test]
    fn nothing_at_all() {
        let silent = || [SILENT, SILENT, SILENT];
        let mut dark = evidence([silent(), silent(), silent(), silent()]);
        dark.closed.clear();
        assert_eq!(codes(&dark), ["nothing.answers"]);
        assert!(!judge(&dark).is_amiss() && !judge(&dark).open.is_empty());
    }

    #[test]
    fn errors_about_one_protocol_only() {
        let hop = |n| [exceeded(n), SILENT, exceeded(n)];
        let path = evidence([hop(1), hop(2), hop(3), [error("192.0.2.80", 3, 3), reply(61), Outcome::Refused]]);
        assert_eq!(codes(&path), ["errors.come_through", "errors.not_about"]);
    }

    #[test]
    fn long_packets() {
        let sized = |length, outcome| Sized { method: Method::Echo, length, outcome };
        let too_big = |mtu| {
            Outcome::Error(IcmpError { from: Some(ip("203.0.113.3")), icmp_type: 3, code: 4, mtu, quote: Quote::Short })
        };
        let with = |outcome| {
            let mut path = open_path();
            path.sizes = vec![sized(1500, outcome), sized(1200, reply(61))];
            codes(&path)[1]
        };
        assert_eq!(with(SILENT), "mtu.black_hole");
        assert_eq!(with(too_big(1200)), "mtu.told");
        assert_eq!(with(too_big(0)), "mtu.useless");
        assert_eq!(with(too_big(1500)), "mtu.useless");
        assert_eq!(with(reply(61)), "mtu.not_needed");
    }

    #[test]
    fn errors_that_quote_another_datagram() {
        let crossing = |quoted| Crossing { sent: vec![1, 2, 3], quoted };
        let with = |quoted| {
            let mut path = open_path();
            path.crossing = vec![crossing(quoted)];
            codes(&path).contains(&"quote.wrong_packet")
        };
        assert!(!with(vec![Quote::Tag(1), Quote::Tag(3)]), "one was lost");
        assert!(!with(vec![Quote::Short, Quote::Short]));
        assert!(with(vec![Quote::Tag(3), Quote::Tag(3)]));
        assert!(with(vec![Quote::Tag(7)]));
        assert!(with(vec![Quote::Foreign]));
    }
}
