//! What the evidence says, and what it does not.

use std::net::IpAddr;

use ctwhy_linux::probe::{Method, Quote};

use super::claim::{Claim, Confidence, hops, list, noun};
use super::evidence::{Evidence, Outcome, Sized, is_too_big};
use super::nearer::{Nearer, proxies};

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

    pub(super) fn claim(&mut self, claim: Claim, confidence: Confidence, because: Vec<String>) {
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
    let nearer = proxies(evidence, &mut verdict);
    made_up(evidence, &mut verdict);
    errors(evidence, &nearer, &mut verdict);
    quotes(evidence, &mut verdict);
    sizes(evidence, &nearer, &mut verdict);
    if !evidence.raw {
        verdict.open.push("whether errors arrive that no socket gets (that takes CAP_NET_RAW)".to_owned());
    }
    verdict
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
fn errors(evidence: &Evidence, nearer: &Nearer, verdict: &mut Verdict) {
    let heard: Vec<(Method, IpAddr)> =
        evidence.outcomes().filter_map(|(method, outcome)| Some((method, outcome.error()?.from?))).collect();
    let first_hop: Vec<IpAddr> =
        evidence.hops.first().into_iter().flat_map(|hop| hop.routers().collect::<Vec<_>>()).collect();
    let mut beyond: Vec<IpAddr> =
        heard.iter().map(|(_, from)| *from).filter(|from| !first_hop.contains(from)).collect();
    beyond.sort_unstable();
    beyond.dedup();
    if heard.is_empty() {
        return no_errors(evidence, nearer, verdict);
    }
    let reached_by_ttl = Method::ALL
        .iter()
        .filter(|method| !nearer.is_proxied(**method))
        .filter_map(|method| evidence.reached(*method))
        .min();
    if beyond.is_empty() {
        let owed = owed(evidence, nearer);
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
    if let Some(anew) = nearer.anew.clone().filter(|_| nearer.proxied.is_empty()) {
        verdict.claim(Claim::RepliesMadeAnew, Confidence::Low, vec![anew]);
        verdict.open.push("whether somebody only sets the TTL of what comes back".to_owned());
    }
    not_about(evidence, nearer, &heard, verdict);
    silent_places(evidence, nearer, verdict);
}

/// What should have made an error and did not, a sentence each.
fn owed(evidence: &Evidence, nearer: &Nearer) -> Vec<String> {
    let mut owed = Vec::new();
    let honest = |method: &Method| !nearer.is_proxied(*method);
    // Whatever has a longer way to go may have arrived.
    let distance = Method::ALL.into_iter().filter(honest).filter_map(|method| evidence.reached(method)).min();
    let distance = if nearer.or_next_host { Some(1) } else { distance };
    for method in Method::ALL.into_iter().filter(honest) {
        let silent: Vec<u8> = evidence
            .hops
            .iter()
            .filter(|hop| distance.is_none_or(|distance| hop.ttl < distance))
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

fn no_errors(evidence: &Evidence, nearer: &Nearer, verdict: &mut Verdict) {
    let mut because = owed(evidence, nearer);
    // With TTL 1 even the first router has to speak; where the target is a neighbour nobody has to.
    let expected = because.len();
    if evidence.on_link || expected == 0 {
        verdict.open.push("whether errors come through: nothing that was sent had to make one".to_owned());
    } else if nearer.sockets() && !nearer.or_next_host {
        // One method alone may have a proxy of its own, such as one for web pages, and there are routers that set a TTL.
        let sure = nearer.proxied.len() > usize::from(nearer.anew.is_none());
        because.extend(nearer.anew.clone());
        verdict.claim(
            Claim::SocketNatSwallowsErrors,
            if sure { Confidence::High } else { Confidence::Medium },
            because,
        );
    } else {
        let confidence = if expected > 2 { Confidence::Medium } else { Confidence::Low };
        verdict.claim(Claim::NoErrors, confidence, because);
        verdict
            .open
            .push("whether every router and the target stay silent on purpose: then it would look the same".to_owned());
    }
}

/// Errors about one kind of packet and not about another.
fn not_about(evidence: &Evidence, nearer: &Nearer, heard: &[(Method, IpAddr)], verdict: &mut Verdict) {
    for method in Method::ALL {
        if nearer.is_proxied(method) || !evidence.used(method) || heard.iter().any(|(by, _)| *by == method) {
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
            let answered = evidence.outcomes().any(|(by, outcome)| by == method && outcome.is_answer());
            let claim = if answered { Claim::NotAbout(method) } else { Claim::NoAnswerTo(method) };
            verdict.claim(claim, confidence, because);
        }
    }
}

/// TTLs that nobody answers, and a target that does not.
fn silent_places(evidence: &Evidence, nearer: &Nearer, verdict: &mut Verdict) {
    let honest: Vec<Method> =
        Method::ALL.into_iter().filter(|method| evidence.used(*method) && !nearer.is_proxied(*method)).collect();
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
    let claimed = |method: Method| verdict.findings.iter().any(|f| f.claim == Claim::NoAnswerTo(method));
    let unreached = honest.into_iter().filter(|method| evidence.reached(*method).is_none() && !claimed(*method));
    let unreached: Vec<Method> = unreached.collect();
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
fn sizes(evidence: &Evidence, nearer: &Nearer, verdict: &mut Verdict) {
    let mut cut = false;
    let whole = |sized: &&Sized| sized.outcome.arrived(evidence.dest) && !nearer.is_proxied(sized.method);
    // What one method gets through the way takes; if another does not, that is not for its length.
    let longest = evidence.sizes.iter().filter(whole).map(|sized| sized.length).max().unwrap_or(0);
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
            .filter(|sized| sized.length > passes.max(longest) && matches!(sized.outcome, Outcome::Silent { .. }))
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
        } else if nearer.is_proxied(method) || nearer.sockets() {
            // What was sent is not what leaves.
            cut = true;
        } else if passes == longest {
            verdict.claim(Claim::NoNarrowLink(passes), Confidence::High, vec![format!("{} with DF", noun(method))]);
        }
    }
    if cut && !verdict.findings.iter().any(|f| matches!(f.claim, Claim::MtuTold(_) | Claim::MtuUseless(_))) {
        verdict.open.push("whether long packets arrive whole: what makes them anew may cut them".to_owned());
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
        let with = |reply| {
            let mut swallowed = evidence([hop(), hop(), hop(), [SILENT, reply, Outcome::Connected]]);
            swallowed.closed[0].1 = SILENT;
            swallowed.sizes = vec![Sized { method: Method::Echo, length: 1500, outcome: self::reply(64) }];
            judge(&swallowed)
        };
        let codes = |verdict: &Verdict| verdict.findings.iter().map(|f| f.claim.code()).collect::<Vec<_>>();
        let verdict = with(reply(64));
        // Whoever sends it anew may cut it.
        assert_eq!(codes(&verdict), ["proxy", "errors.swallowed_by_socket_nat"]);
        assert_eq!(verdict.findings[1].confidence, Confidence::High);
        assert_eq!(verdict.findings[0].claim, Claim::Proxy(vec![Method::Tcp]));
        assert!(!verdict.findings[1].because[0].contains('4'), "with TTL 4 it may have arrived: {verdict:?}");
        // A reply that routers have forwarded was not made by sockets: the proxy is one for TCP alone.
        assert_eq!(codes(&with(reply(61))), ["proxy", "errors.none", "mtu.not_needed"]);
    }

    #[test]
    fn a_next_host_that_filters_looks_like_a_proxy_for_pings() {
        let hop = || [SILENT, reply(255), SILENT];
        let mut near = evidence([hop(), hop(), hop(), hop()]);
        near.closed[0].1 = SILENT;
        assert_eq!(codes(&near), ["proxy.or_next_host", "errors.none"]);
        let verdict = judge(&near);
        assert_eq!(verdict.findings[1].confidence, Confidence::Low);
        assert!(verdict.open.iter().any(|open| open.contains("ask for one that is farther away")));
        near.to_nowhere[1].1 = reply(255);
        assert_eq!(codes(&near), ["proxy", "echo.made_up", "errors.swallowed_by_socket_nat"]);
    }

    #[test]
    fn replies_that_are_made_anew_without_harm() {
        let mut path = open_path();
        path.hops[3].outcomes[1] = Some(reply(64));
        path.sizes = vec![Sized { method: Method::Echo, length: 1500, outcome: reply(64) }];
        assert_eq!(codes(&path), ["errors.come_through", "replies.made_anew"]);
        assert!(!judge(&path).is_amiss());
        assert!(judge(&path).open.iter().any(|open| open.contains("arrive whole")));
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
        // Without any answer nobody knows whether they left at all.
        let mut path = path;
        path.hops[3].outcomes[1] = Some(SILENT);
        assert_eq!(codes(&path), ["errors.come_through", "probes.unanswered"]);
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
        let mut path = open_path();
        path.sizes = vec![sized(1500, SILENT), sized(1200, reply(61))];
        path.sizes.push(Sized { method: Method::Udp, length: 1500, outcome: error("192.0.2.80", 3, 3) });
        assert_eq!(codes(&path), ["errors.come_through", "mtu.not_needed"], "a filter of long pings is no black hole");
        assert!(judge(&path).findings[1].because[0].starts_with("UDP"), "{:?}", judge(&path));
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
