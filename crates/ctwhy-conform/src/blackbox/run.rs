//! Every requirement asked, one after the other.

use std::io;
use std::time::Duration;

use ctwhy_core::tuple::L3;

use super::bench::{Bench, Hosts, Logged};
use super::nat::Nat;
use super::requirement::{Group, Level, Outcome, Requirement, Stop};
use super::survey::Survey;
use super::{
    errors_in, errors_out, filtering, forged, fragments, hairpin, kind, mapping, mtu, ports, quotes, survival,
    timeouts, ttl,
};

/// Every requirement, in the order in which they are asked.
#[must_use]
pub fn requirements() -> Vec<Requirement> {
    let groups = [
        kind::requirements,
        mapping::requirements,
        ports::requirements,
        filtering::requirements,
        hairpin::requirements,
        errors_in::requirements,
        quotes::requirements,
        forged::requirements,
        errors_out::requirements,
        fragments::requirements,
        mtu::requirements,
        ttl::requirements,
        survival::requirements,
        timeouts::requirements,
    ];
    groups.into_iter().flat_map(|group| group()).collect()
}

/// What is asked, and how patiently.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The addresses of each family that is tested.
    pub families: Vec<Hosts>,
    /// How long is waited for a packet that does not come.
    pub patience: Duration,
    /// What needs longer is not asked. 0 for nothing that waits for a timeout.
    pub seconds: u64,
    /// Only these groups; all when there are none.
    pub groups: Vec<Group>,
    /// Only requirements whose id begins with one of these; all when there are none.
    pub only: Vec<String>,
}

/// What came of one requirement for one family.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was asked.
    pub requirement: Requirement,
    /// Of which family.
    pub l3num: L3,
    /// What came of it.
    pub outcome: Outcome,
    /// What went by meanwhile.
    pub packets: Vec<Logged>,
    /// How long it took.
    pub took: Duration,
}

impl Verdict {
    /// The requirement with its family: the name of a test, and of a file.
    #[must_use]
    pub fn name(&self) -> String {
        let family = match self.l3num {
            L3::V4 => "v4",
            L3::V6 => "v6",
        };
        format!("{}-{family}", self.requirement.id)
    }

    /// Does the run fail by it? A strict one does also by what the kernel does not do.
    #[must_use]
    pub fn fails(&self, strict: bool) -> bool {
        let counts = strict || self.requirement.beyond.is_none();
        matches!(self.outcome, Outcome::Fail(_) | Outcome::Inconclusive(_))
            && counts
            && self.requirement.level != Level::Note
    }
}

/// What a run tells as it goes on.
#[derive(Clone, Debug)]
pub enum News {
    /// What was found out about a family before anything was asked.
    Surveyed(L3, Survey),
    /// What came of a requirement.
    Verdict(Box<Verdict>),
}

/// Asks a NAT everything, and tells of every answer as it comes.
///
/// # Errors
/// The cables are gone, or the NAT cannot be reached on its link.
pub fn run(nat: &mut dyn Nat, plan: &Plan, mut tell: impl FnMut(News)) -> io::Result<()> {
    let chosen = plan.requirements();
    for hosts in &plan.families {
        let mut bench = Bench::new(&mut *nat, hosts.clone(), plan.patience);
        bench.begin()?;
        bench.find_out()?;
        tell(News::Surveyed(hosts.l3num, bench.survey));
        let passes = bench.survey.passes();
        for requirement in chosen.iter().filter(|requirement| requirement.concerns(hosts.l3num)) {
            bench.begin()?;
            let start = bench.now();
            let mut died = None;
            let outcome = if requirement.seconds > plan.seconds {
                Outcome::NotApplicable(format!("takes {} s", requirement.seconds))
            } else if !passes {
                Outcome::NotApplicable("nothing of this family comes through".to_owned())
            } else {
                match (requirement.probe)(&mut bench) {
                    Ok(()) => Outcome::Pass,
                    Err(Stop::Judged(outcome)) => outcome,
                    Err(Stop::Io(error)) if error.kind() != io::ErrorKind::NetworkDown => return Err(error),
                    Err(Stop::Io(error)) => {
                        died = Some(error);
                        Outcome::Fail("the NAT died of it".to_owned())
                    }
                }
            };
            let (took, packets) = (bench.now().saturating_sub(start), bench.take_log());
            let (requirement, l3num) = (requirement.clone(), hosts.l3num);
            tell(News::Verdict(Box::new(Verdict { requirement, l3num, outcome, packets, took })));
            if let Some(error) = died
                && !bench.revive()?
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

impl Plan {
    /// The requirements that are asked.
    #[must_use]
    pub fn requirements(&self) -> Vec<Requirement> {
        requirements().into_iter().filter(|requirement| self.wants(requirement)).collect()
    }

    fn wants(&self, requirement: &Requirement) -> bool {
        if requirement.seconds > 0 && self.seconds == 0 {
            return false;
        }
        let group = self.groups.is_empty() || self.groups.contains(&requirement.group);
        let asked_for = self.only.is_empty() || self.only.iter().any(|start| requirement.id.starts_with(start));
        group && asked_for
    }
}
