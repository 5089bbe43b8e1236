//! Who answers in the target's name, told by how far a packet gets with its TTL.

use ctwhy_linux::probe::Method;

use super::claim::{Claim, Confidence, list, noun};
use super::evidence::{Evidence, Outcome};
use super::verdict::Verdict;

/// Who answers in the target's name.
#[derive(Debug, Default)]
pub(super) struct Nearer {
    /// The methods by which the target answers before a packet can have come to it, or is believed to.
    pub(super) proxied: Vec<Method>,
    /// Is the target the next host, unless those are proxied?
    pub(super) or_next_host: bool,
    /// Echo replies look as if nobody had forwarded them, though the target is far away: how so.
    pub(super) anew: Option<String>,
    /// Echo replies look as if routers had forwarded them.
    forwarded: bool,
}

impl Nearer {
    pub(super) fn is_proxied(&self, method: Method) -> bool {
        self.proxied.contains(&method)
    }

    /// Does it look as if what arrives here, and what leaves, is made by somebody nearby?
    pub(super) fn sockets(&self) -> bool {
        !self.forwarded && (self.anew.is_some() || !self.proxied.is_empty())
    }
}

/// Looks for answers that came before a packet can have come to the target.
pub(super) fn proxies(evidence: &Evidence, verdict: &mut Verdict) -> Nearer {
    let used: Vec<Method> = Method::ALL.into_iter().filter(|method| evidence.used(*method)).collect();
    let reached: Vec<(Method, u8)> =
        used.iter().filter_map(|method| Some((*method, evidence.reached(*method)?))).collect();
    // A router at this TTL proves that the target lies farther away.
    let farthest_router = evidence.hops.iter().rev().find(|hop| hop.routers().any(|router| router != evidence.dest));
    let farther = farthest_router.map_or(0, |hop| hop.ttl).max(reached.iter().map(|(_, ttl)| *ttl).max().unwrap_or(0));
    let mut nearer = Nearer {
        anew: reset_ttl(evidence, farther),
        forwarded: reply_ttl(evidence).is_some_and(|ttl| !is_fresh(ttl)),
        ..Nearer::default()
    };
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
            nearer.proxied.push(*method);
        }
    }
    if evidence.on_link || reached.is_empty() {
        return nearer;
    }
    let all_at_once = reached.iter().all(|(_, ttl)| *ttl == 1);
    let nobody_answers =
        evidence.to_nowhere.iter().any(|(_, outcome)| matches!(outcome, Outcome::Reply { .. } | Outcome::Connected));
    if nearer.proxied.is_empty() && all_at_once {
        nearer.proxied = reached.iter().map(|(method, _)| *method).collect();
        because.push(format!(
            "answers to {} with TTL 1 come in the name of the target, which is in no network of this host's",
            list(&nearer.proxied, "and")
        ));
        let never: Vec<Method> = used.iter().copied().filter(|method| evidence.reached(*method).is_none()).collect();
        if !never.is_empty() {
            because.push(format!("never by {}", list(&never, "or")));
        }
        if nobody_answers {
            verdict.claim(Claim::Proxy(nearer.proxied.clone()), Confidence::High, because);
            return nearer;
        }
        // Nothing tells a distance. A next host that filters looks like that, too.
        nearer.or_next_host = true;
        verdict.claim(Claim::NextHostOrProxy, Confidence::High, because);
        verdict.open.push(
            "whether the target is the next host or a proxy answers for it: ask for one that is farther away"
                .to_owned(),
        );
    } else if !nearer.proxied.is_empty() {
        because.extend(nearer.anew.clone());
        verdict.claim(Claim::Proxy(nearer.proxied.clone()), Confidence::High, because);
    }
    nearer
}

/// The TTL of the first echo reply.
fn reply_ttl(evidence: &Evidence) -> Option<u8> {
    evidence.hops.iter().find_map(|hop| match hop.by(Method::Echo)? {
        Outcome::Reply { ttl } => *ttl,
        _ => None,
    })
}

/// Is it what hosts send packets with?
const fn is_fresh(ttl: u8) -> bool {
    matches!(ttl, 64 | 128 | 255)
}

/// Replies from far away that look as if nobody had forwarded them.
fn reset_ttl(evidence: &Evidence, distance: u8) -> Option<String> {
    let ttl = reply_ttl(evidence).filter(|ttl| is_fresh(*ttl) && distance >= 3 && !evidence.on_link)?;
    Some(format!(
        "echo replies arrive with TTL {ttl}, as if no router lay between; the target is at least {distance} hops away"
    ))
}
