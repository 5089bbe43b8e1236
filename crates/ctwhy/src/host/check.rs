//! Is everything known that rules need?

use ctwhy_core::nat::rules::{Ruleset, Target};
use ctwhy_core::network::{Interface, InterfaceAddress, Network};
use ctwhy_core::rules::matches::address_bits;
use ctwhy_core::rules::{Condition, Matches, Rules, Table};
use ctwhy_core::tuple::L3;

/// Is everything known that the rules need? Else the line of the rule, and what to add.
pub(super) fn check(rules: &Rules, l3num: L3, network: &Network) -> Result<(), (u32, String)> {
    for table in [&rules.raw, &rules.mangle, &rules.filter].into_iter().flatten() {
        // Without routes no packet is delivered, and none leaves by any interface.
        let routed = [&table.input, &table.forward].into_iter().flat_map(|chain| &chain.rules);
        let leaving = table.rules().filter(|rule| rule.matches.out_interface.is_some());
        if let Some(rule) = routed.chain(leaving).next()
            && network.is_unknown()
        {
            return Err((rule.line, "the rule needs to know where packets go: add --route PREFIX=IFACE".to_owned()));
        }
    }
    rules.nat.as_ref().map_or(Ok(()), |nat| check_nat(nat, l3num, network))
}

fn check_nat(rules: &Ruleset, l3num: L3, network: &Network) -> Result<(), (u32, String)> {
    let leads_out = |index: u16| {
        let routed = network.routes.iter().any(|route| route.l3num == l3num && route.interface == index);
        let on_link = |own: &InterfaceAddress| own.l3num == l3num && own.network.prefix < address_bits(l3num);
        routed || network.interface(index).is_some_and(|interface| interface.addresses.iter().any(on_link))
    };
    let exits: Vec<&Interface> =
        network.interfaces.iter().zip(0..).filter(|(_, index)| leads_out(*index)).map(|(known, _)| known).collect();
    let addressed = |interface: &Interface| interface.addresses.iter().any(|own| own.l3num == l3num);
    let address = |name: &str| format!("add --local ADDRESS/LEN={name}");
    for rule in rules.rules() {
        let out = rule.matches.out_interface.as_ref();
        let masquerades = matches!(rule.target, Target::Masquerade(_));
        if (out.is_some() || masquerades) && exits.is_empty() {
            let what = if masquerades { "MASQUERADE" } else { "-o" };
            return Err((rule.line, format!("{what} needs to know where packets leave: add --route PREFIX=IFACE")));
        }
        let mut chosen = exits.iter().filter(|exit| out.is_none_or(|condition| names(condition, &exit.name)));
        if masquerades && let Some(bare) = chosen.find(|exit| !addressed(exit)) {
            return Err((rule.line, format!("MASQUERADE needs an address of {}: {}", bare.name, address(&bare.name))));
        }
    }
    for rule in &rules.prerouting.rules {
        if matches!(rule.target, Target::Redirect(_)) {
            let condition = rule.matches.in_interface.as_ref();
            let mut known = network.interfaces.iter().filter(|known| addressed(known));
            if !known.any(|known| condition.is_none_or(|condition| names(condition, &known.name))) {
                let name = condition.filter(|condition| !condition.negated).map_or("IFACE", |c| c.value.as_str());
                let missing = address(name);
                return Err((rule.line, format!("REDIRECT needs an address where packets come in: {missing}")));
            }
        }
    }
    Ok(())
}

/// The line of the first rule that asks where a packet came in, and what in it asks.
pub(super) fn asks_in_interface(rules: &Rules) -> Option<(u32, &'static str)> {
    let asks = |matches: &Matches| matches.in_interface.is_some();
    let filtering = || [&rules.raw, &rules.mangle, &rules.filter].into_iter().flatten().flat_map(Table::rules);
    let nat = || rules.nat.iter().flat_map(Table::rules);
    let by_name = filtering().find(|rule| asks(&rule.matches)).map(|rule| rule.line);
    let by_name = by_name.or_else(|| nat().find(|rule| asks(&rule.matches)).map(|rule| rule.line));
    let mut arriving = rules.nat.iter().flat_map(|nat| &nat.prerouting.rules);
    by_name.map(|line| (line, "-i")).or_else(|| {
        arriving.find(|rule| matches!(rule.target, Target::Redirect(_))).map(|rule| (rule.line, "REDIRECT"))
    })
}

/// Does `-i` or `-o` mean the interface?
fn names(condition: &Condition<String>, name: &str) -> bool {
    let meant = match condition.value.strip_suffix('+') {
        Some(start) => name.starts_with(start),
        None => name == condition.value,
    };
    meant != condition.negated
}
