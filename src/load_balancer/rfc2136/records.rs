//! What stands behind a name, as records: which of them say a share, and which share records say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use domain::base::Rtype;
use domain::rdata::{A, Aaaa, Srv, Txt, ZoneRecordData};

use super::super::dns::{Domain, domain, record_type};
use super::super::{Pair, Unusable};
use crate::spec::fleet::{Family, NameRecords};
use crate::units::{Generation, Weight};

/// What a record says, whatever its type.
pub type Data = ZoneRecordData<Vec<u8>, Domain>;

/// Before the number in the text beside the name.
const GENERATION: &str = "generation=";

/// What each slot is, in the order of the slots' names.
pub enum Behind {
    /// A host and a port each.
    Services([(Domain, u16); 2]),
    /// All of one slot's addresses, or all of the other's.
    Addresses([Vec<IpAddr>; 2]),
}

impl Behind {
    /// From the settings, with names for both slots.
    pub fn new(records: &NameRecords) -> Result<(Self, Pair), Unusable> {
        let names: BTreeMap<_, _> = match records {
            NameRecords::Srv(services) => {
                let text = |slot| format!("{slot:?}");
                services.iter().map(|(slot, it)| (slot.clone(), text(it))).collect()
            }
            NameRecords::Address(addresses) => {
                let text = |slot| format!("{slot:?}");
                addresses.iter().map(|(slot, it)| (slot.clone(), text(it))).collect()
            }
        };
        let pair = Pair::new(&names).map_err(Unusable::new)?;
        let behind = match records {
            NameRecords::Srv(services) => {
                let of = |slot| {
                    let service = services.get(slot).ok_or_else(|| Unusable::new("no service"))?;
                    Ok((domain(&service.target)?, service.port))
                };
                let [one, other] = pair.slots();
                Self::Services([of(one)?, of(other)?])
            }
            NameRecords::Address(all) => Self::Addresses(
                pair.slots().each_ref().map(|slot| all.get(slot).cloned().unwrap_or_default()),
            ),
        };
        Ok((behind, pair))
    }

    /// The types of the records that are written.
    pub fn types(&self) -> Vec<Rtype> {
        match self {
            Self::Services(_) => vec![Rtype::SRV],
            Self::Addresses(slots) => {
                let has = |family| slots.iter().flatten().any(|it| Family::of(*it) == family);
                let both = [Family::A, Family::Aaaa].into_iter();
                both.filter(|family| has(*family)).map(record_type).collect()
            }
        }
    }

    /// All records that say these weights. A slot without weight has none: a weight of 0 would still get a small share.
    pub fn write(&self, weights: [Weight; 2]) -> Vec<Data> {
        let shown = weights.into_iter().filter(|weight| !weight.is_zero()).count();
        match self {
            Self::Services(services) => services
                .iter()
                .zip(weights)
                .filter(|(_, weight)| !weight.is_zero())
                .map(|((host, port), weight)| {
                    Data::Srv(Srv::new(0, weight.hundredths(), *port, host.clone()))
                })
                .collect(),
            Self::Addresses(slots) => {
                debug_assert_eq!(shown, 1, "addresses have no weights");
                let full = slots.iter().zip(weights).filter(|(_, weight)| !weight.is_zero());
                full.flat_map(|(addresses, _)| addresses).map(|it| address_data(*it)).collect()
            }
        }
    }

    /// The weights of both slots that records say, or why they say none.
    pub fn read(&self, records: &[Data]) -> Result<[u64; 2], String> {
        if records.is_empty() {
            return Err("the name has no records of its type".to_owned());
        }
        match self {
            Self::Services(services) => read_services(services, records),
            Self::Addresses(slots) => {
                let mut counts = [0, 0];
                for record in records {
                    let slot = address_of(record)
                        .and_then(|it| slots.iter().position(|slot| slot.contains(&it)));
                    counts[slot.ok_or_else(|| format!("{record} is of neither slot"))?] += 1;
                }
                match counts {
                    [0, _] | [_, 0] => Ok(counts),
                    _ => Err("addresses of both slots, which have no weights".to_owned()),
                }
            }
        }
    }
}

fn read_services(services: &[(Domain, u16); 2], records: &[Data]) -> Result<[u64; 2], String> {
    let mut weights = [0, 0];
    let mut priorities = Vec::new();
    for record in records {
        let Data::Srv(found) = record else { continue };
        let is_it = |(host, port): &(Domain, u16)| host == found.target() && *port == found.port();
        let slot = services.iter().position(is_it);
        let slot =
            slot.ok_or_else(|| format!("{}:{} is of neither slot", found.target(), found.port()))?;
        // Alone it gets everything, whatever its weight.
        if found.weight() == 0 && records.len() > 1 {
            let what =
                "a record of weight 0 still gets a small share; without the record it gets none";
            return Err(what.to_owned());
        }
        weights[slot] += u64::from(found.weight().max(1));
        priorities.push(found.priority());
    }
    if priorities.windows(2).any(|two| two[0] != two[1]) {
        return Err("records of different priorities: weights count only within one".to_owned());
    }
    Ok(weights)
}

fn address_data(address: IpAddr) -> Data {
    match address {
        IpAddr::V4(address) => Data::A(A::new(address)),
        IpAddr::V6(address) => Data::Aaaa(Aaaa::new(address)),
    }
}

fn address_of(record: &Data) -> Option<IpAddr> {
    match record {
        Data::A(record) => Some(IpAddr::V4(record.addr())),
        Data::Aaaa(record) => Some(IpAddr::V6(record.addr())),
        _ => None,
    }
}

/// The text that keeps a generation.
pub fn marker(generation: Generation) -> Option<Data> {
    let text = format!("{GENERATION}{}", generation.0);
    Txt::build_from_slice(text.as_bytes()).ok().map(Data::Txt)
}

/// The newest generation in these texts.
pub fn generation(records: &[Data]) -> Option<Generation> {
    let texts = records.iter().filter_map(|record| match record {
        Data::Txt(text) => String::from_utf8(text.text::<Vec<u8>>()).ok(),
        _ => None,
    });
    texts.filter_map(|text| text.strip_prefix(GENERATION)?.parse().ok().map(Generation)).max()
}
