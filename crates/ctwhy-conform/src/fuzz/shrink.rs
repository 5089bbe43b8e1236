//! From thousands of packets to the few that matter: leave some out, try again, keep what still differs.

use super::compare::Difference;
use super::window::Arrival;

/// A packet of an episode, and whether time passed before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) arrival: Arrival,
    pub(crate) pause: bool,
}

/// Packets about which kernel and engine still differ, and how.
pub(crate) type Shrunk = (Vec<Input>, Difference);

/// More trials than this are never made.
const TRIALS: usize = 600;

/// Finds few packets about which they differ. `differs` puts packets through both, from an empty table on. `None` when
/// they agree about all of `inputs` now, again and again.
///
/// # Errors
/// That of `differs`.
pub(crate) fn shrink<E>(
    inputs: Vec<Input>,
    mut differs: impl FnMut(&[Input]) -> Result<Option<(usize, Difference)>, E>,
) -> Result<Option<Shrunk>, E> {
    let mut trials = 0;
    let mut attempt = |inputs: &[Input]| -> Result<Option<Shrunk>, E> {
        trials += 1;
        if inputs.is_empty() || trials > TRIALS {
            return Ok(None);
        }
        // What came behind the first difference has no part in it.
        let found = differs(inputs)?;
        Ok(found.map(|(last, difference)| (inputs.get(..=last).unwrap_or(inputs).to_vec(), difference)))
    };
    let mut best = None;
    for _ in 0..3 {
        best = attempt(&inputs)?;
        if best.is_some() {
            break;
        }
    }
    let Some(mut best) = best else { return Ok(None) };
    // Most often only packets between the same two hosts matter, errors that quote such a packet included.
    if let Some(pair) = best.0.last().and_then(|input| hosts(&input.arrival.bytes)) {
        let between: Vec<Input> = best.0.iter().filter(|input| mentions(&input.arrival.bytes, pair)).cloned().collect();
        if between.len() < best.0.len()
            && let Some(smaller) = attempt(&between)?
        {
            best = smaller;
        }
    }
    // Zeller's ddmin: leave out ever smaller parts.
    let mut size = best.0.len().div_ceil(2).max(1);
    loop {
        let mut at = best.0.len();
        let mut smaller_found = false;
        while at > 0 {
            let from = at.saturating_sub(size);
            let without = |at: usize| {
                let (before, behind) = (best.0.get(..from), best.0.get(at..));
                [before.unwrap_or_default(), behind.unwrap_or_default()].concat()
            };
            let rest = if at <= best.0.len() { without(at) } else { Vec::new() };
            if rest.len() < best.0.len()
                && let Some(smaller) = attempt(&rest)?
            {
                best = smaller;
                smaller_found = true;
            }
            at = from;
        }
        if size > 1 {
            size = size.div_ceil(2);
        } else if !smaller_found {
            return Ok(Some(best));
        }
    }
}

/// The addresses in an IP header.
fn hosts(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    match packet.first()? >> 4 {
        4 => Some((packet.get(12..16)?, packet.get(16..20)?)),
        _ => Some((packet.get(8..24)?, packet.get(24..40)?)),
    }
}

fn mentions(packet: &[u8], (one, other): (&[u8], &[u8])) -> bool {
    let has = |address: &[u8]| packet.windows(address.len()).any(|bytes| bytes == address);
    has(one) && has(other)
}

#[cfg(test)]
mod tests {
    use super::super::window::Port;
    use super::*;

    fn inputs(count: u16) -> Vec<Input> {
        let packet = |number: u16| {
            let mut bytes = vec![0x45; 20];
            bytes.extend(number.to_be_bytes());
            Input { arrival: Arrival { port: Port::Lan, bytes }, pause: false }
        };
        (0..count).map(packet).collect()
    }

    fn number(input: &Input) -> u8 {
        input.arrival.bytes[21]
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let difference = Difference::CtInfo { kernel: None, engine: None, reason: None };
        // Three packets in this order are needed.
        let wanted = [3u8, 77, 191];
        let differs = |inputs: &[Input]| -> Result<_, ()> {
            let mut wanted = wanted.iter().peekable();
            for (at, input) in inputs.iter().enumerate() {
                wanted.next_if(|&&next| next == number(input));
                if wanted.peek().is_none() {
                    return Ok(Some((at, difference.clone())));
                }
            }
            Ok(None)
        };
        let (few, _) = shrink(inputs(200), differs).unwrap().unwrap();
        assert_eq!(few.iter().map(number).collect::<Vec<_>>(), wanted);
        assert_eq!(shrink(inputs(50), differs), Ok(None));
    }
}
