//! What it costs to make the rules and everything that belongs to them: 80 interfaces of 64
//! addresses from nothing, and one address more.
//!
//! The floor sends the same requests, prepared beforehand, as one batch over a socket of the same
//! kind, to a host of its own. It finds the settings of devices, which are files, already written.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jackfield_hostnet::{Cloud, MAIN, Plan, Scope, Snapshot, apply, desired, plan};
use jackfield_kernel::{Family, Request, Route, Rtnetlink};
use jackfield_lab::Host;

use crate::Failure;
use crate::place::{self, all_done, cable, hop, look, own_addresses, up};
use crate::site::{Layout, Site, mac};
use crate::statistics::{interval, median, verdict};

const INTERFACES: u32 = 80;
/// Of each family: 64 together.
const ADDRESSES: u32 = 32;
/// The interface that gets one more.
const LUCKY: u32 = 40;
/// jackfield's time by the floor's, from nothing.
const RATIO: f64 = 2.0;
/// Plans that it may take until nothing is left to do.
const PATIENCE: usize = 6;

/// Who makes the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Jackfield,
    Floor,
}

/// What it took until nothing was left to do.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    /// To find out what is to be done.
    thinking: Duration,
    /// To do it.
    making: Duration,
    plans: usize,
    requests: u64,
}

impl Took {
    fn milliseconds(self) -> f64 {
        (self.thinking + self.making).as_secs_f64() * 1000.0
    }
}

/// Times both in turn.
pub(crate) fn measure(rounds: usize) -> Result<(), Failure> {
    for layout in [Layout::Own, Layout::Interleaved] {
        let site = Site { layout, interfaces: INTERFACES, addresses: ADDRESSES };
        println!("{INTERFACES} interfaces of {} addresses, {}", 2 * ADDRESSES, layout.name());
        println!(
            "{:<24} {:>12} {:>10} {:>10} {:>7} {:>13} {:>6} {:>9}",
            "", "jackfield ms", "thinking", "floor ms", "ratio", "95 percent", "plans", "messages"
        );
        let hosts = [Subject::new()?, Subject::new()?];
        let nothing = Site { interfaces: 0, ..site }.cloud()?;
        let steps = [
            ("from nothing", site.cloud()?, Some(RATIO)),
            ("one IPv4 address more", more(site, &[Family::V4])?, None),
            ("one IPv6 address more", more(site, &Family::BOTH)?, None),
            ("one IPv6 address less", more(site, &[Family::V4])?, None),
            ("all but the primary off", nothing, None),
        ];
        let mut times = vec![Vec::new(); steps.len()];
        // The first one finds cold caches.
        for round in 0..=rounds {
            for ((_, cloud, _), times) in steps.iter().zip(&mut times) {
                let scope = |is: &Snapshot| match cloud.interfaces.len() {
                    1 => Scope::Unplug(secondaries(is)),
                    _ => Scope::Everything,
                };
                let [first, second] = &hosts;
                let (ours, floor) = if round % 2 == 0 {
                    let ours = first.settle(cloud, &scope, Maker::Jackfield)?;
                    (ours, second.settle(cloud, &scope, Maker::Floor)?)
                } else {
                    let floor = second.settle(cloud, &scope, Maker::Floor)?;
                    (first.settle(cloud, &scope, Maker::Jackfield)?, floor)
                };
                if ours.requests != floor.requests {
                    let (ours, floor) = (ours.requests, floor.requests);
                    return Err(format!("{ours} requests here, {floor} by the floor").into());
                }
                if round > 0 {
                    times.push((ours, floor));
                }
            }
        }
        for ((name, _, most), times) in steps.iter().zip(&times) {
            report(name, times, *most);
        }
        println!();
    }
    Ok(())
}

/// What is wanted where the lucky interface has one address of each of these families more.
fn more(site: Site, families: &[Family]) -> Result<Cloud, Failure> {
    let mut cloud = site.cloud()?;
    let lucky = cloud.interfaces.get_mut(&mac(LUCKY)).ok_or("there is no interface for more")?;
    lucky.addresses.extend(families.iter().map(|family| site.new_address(LUCKY, *family)));
    Ok(cloud)
}

fn secondaries(snapshot: &Snapshot) -> BTreeSet<u32> {
    let primary = jackfield_kernel::EthernetAddress::from(mac(0));
    let others = snapshot.candidates().filter(|it| it.link.address != Some(primary));
    others.map(|it| it.link.index).collect()
}

fn report(name: &str, times: &[(Took, Took)], most: Option<f64>) {
    let of = |figure: fn(Took, Took) -> f64| -> Vec<f64> {
        times.iter().map(|(ours, floor)| figure(*ours, *floor)).collect()
    };
    let ratios = of(|ours, floor| ours.milliseconds() / floor.milliseconds());
    let ratio = median(&ratios);
    let (low, high) = interval(&ratios);
    let verdict = most.map(|most| verdict(ratio, most)).unwrap_or_default();
    println!(
        "{name:<24} {:>12.2} {:>10.2} {:>10.2} {ratio:>7.3} {:>13} {:>6} {:>9}   {verdict}",
        median(&of(|ours, _| ours.milliseconds())),
        median(&of(|ours, _| ours.thinking.as_secs_f64() * 1000.0)),
        median(&of(|_, floor| floor.milliseconds())),
        format!("{low:.3} {high:.3}"),
        median(&of(|ours, _| ours.plans as f64)),
        median(&of(|ours, _| ours.requests as f64)),
    );
}

/// A host with its interfaces, and the end of their cables.
struct Subject {
    near: Host,
    _far: Host,
}

impl Subject {
    fn new() -> Result<Self, Failure> {
        let (near, far) = (place::host("near")?, place::host("far")?);
        let all: Vec<u32> = (0..=INTERFACES).collect();
        cable(&near, &far, &all)?;
        let primary = near.link("eth0")?.index;
        let mut requests = vec![up(primary)];
        requests.extend(own_addresses().map(|address| place::on(primary, address).add()));
        requests.extend(Family::BOTH.map(|family| {
            Route::via_gateway(family.everything(), MAIN, primary, hop(family)).add()
        }));
        near.apply("set the primary up", &requests)?;
        Ok(Subject { near, _far: far })
    }

    /// Plans and makes the changes until nothing is left to do. To look at the machine does not
    /// count: both would have to.
    fn settle(
        &self,
        cloud: &Cloud,
        scope: &(impl Fn(&Snapshot) -> Scope + Sync),
        maker: Maker,
    ) -> Result<Took, Failure> {
        self.near.run(|| {
            let config = place::config();
            let mut kernel = Rtnetlink::open()?;
            let mut took = Took::default();
            for _ in 0..PATIENCE {
                let snapshot = look(&mut kernel, cloud, &config)?;
                let scope = scope(&snapshot);
                let began = Instant::now();
                let wanted = desired(&snapshot, cloud, &config, &scope);
                let plan = plan(&snapshot, &wanted);
                let thinking = began.elapsed();
                if plan.is_empty() {
                    return Ok(took);
                }
                took.plans += 1;
                let before = kernel.writes();
                match maker {
                    Maker::Jackfield => {
                        let began = Instant::now();
                        let applied = apply(&mut kernel, &plan)?;
                        took.making += began.elapsed();
                        took.thinking += thinking;
                        all_done(&applied)?;
                    }
                    Maker::Floor => took.making += floor(&mut kernel, plan)?,
                }
                took.requests += kernel.writes() - before;
            }
            Err("there is always something left to do".into())
        })?
    }
}

/// Sends what a plan comes down to.
fn floor(kernel: &mut Rtnetlink, plan: Plan) -> Result<Duration, Failure> {
    let requests: Vec<Request> =
        plan.changes.iter().filter_map(jackfield_hostnet::Change::request).collect();
    let is_setting = |change: &jackfield_hostnet::Change| change.request().is_none();
    let settings = Plan { changes: plan.changes.into_iter().filter(is_setting).collect() };
    all_done(&apply(kernel, &settings)?)?;
    let began = Instant::now();
    let answers = kernel.batch(&requests)?;
    let took = began.elapsed();
    // What went with a device before its turn came is done.
    match answers.into_iter().filter_map(Result::err).find(|refusal| !refusal.already_gone()) {
        Some(refusal) => Err(format!("the floor: {refusal}").into()),
        None => Ok(took),
    }
}
