//! Monitors over many polls: what they conserve, ignore and remember.

use super::*;

fn count_monitor(family: Family, limit: Limit) -> CountMonitor {
    let mut monitor = CountMonitor::new(family, limit, Levels::default());
    monitor.preload(Arm::new(30.0, 30_000.0));
    monitor
}

/// Every way to spoil one number of a window.
fn spoiled(window: &Window) -> Vec<Window> {
    let mut all = Vec::new();
    for broken in UNREADABLE {
        let fields: [fn(&mut Window) -> &mut f64; 5] = [
            |it| &mut it.canary.events,
            |it| &mut it.canary.requests,
            |it| &mut it.stable.events,
            |it| &mut it.stable.requests,
            |it| &mut it.seconds,
        ];
        for field in fields {
            let mut window = *window;
            *field(&mut window) = broken;
            all.push(window);
        }
    }
    all
}

/// Writes and reads back; the text of the copy must be the same too.
fn round_trip<T>(value: &T) -> T
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string(value).unwrap();
    let back: T = serde_json::from_str(&text).unwrap();
    assert_eq!(&back, value);
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
    back
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_poll_with_an_unreadable_number_counts_as_empty(
        family in any_family(),
        limit in any_limit(),
        polls in prop::collection::vec(any_window(), 1..6),
    ) {
        let mut monitor = count_monitor(family, limit);
        for poll in &polls {
            for window in spoiled(poll) {
                let mut empty = monitor.clone();
                empty.update(&Window::empty(window.cleaned().seconds), &Conditions::default());
                let mut broken = monitor.clone();
                let evidence = broken.update(&window, &Conditions::default());
                prop_assert_eq!(evidence, Evidence::NONE);
                prop_assert_eq!(&broken, &empty);
                prop_assert!((broken.log_bad() - monitor.log_bad()).abs() < 1e-9);
                prop_assert_eq!(broken.log_ok(), monitor.log_ok());
            }
            monitor.update(poll, &Conditions::default());
        }
    }

    #[test]
    fn wealth_is_conserved_while_nothing_is_said(seconds in prop::collection::vec(0.0..1e5_f64, 1..40)) {
        let mut wealth = Wealth::for_counts(0.05);
        for (index, seconds) in seconds.into_iter().enumerate() {
            if index % 7 == 3 {
                wealth.traffic_step();
            }
            wealth.absorb(&Evidence::NONE, seconds);
            prop_assert!(wealth.log_bad().abs() < 1e-9, "{}", wealth.log_bad());
            prop_assert!(wealth.log_ok().abs() < 1e-9);
        }
    }

    #[test]
    fn a_restart_continues_with_the_same_bits(
        family in any_family(),
        limit in any_limit(),
        polls in prop::collection::vec(any_window(), 1..12),
        steps in prop::collection::vec(any::<bool>(), 12),
    ) {
        let mut kept = count_monitor(family, limit);
        let mut restored = round_trip(&kept);
        let mut pool = PooledMonitor::new(Levels::default());
        for (poll, step) in polls.iter().zip(steps) {
            if step {
                kept.traffic_step();
                restored.traffic_step();
            }
            let evidence = kept.update(poll, &Conditions::without_history(None));
            restored.update(poll, &Conditions::without_history(None));
            pool.update([&evidence], poll.seconds, 2.0);
            restored = round_trip(&restored);
            pool = round_trip(&pool);
            prop_assert_eq!(kept.log_bad().to_bits(), restored.log_bad().to_bits());
            prop_assert_eq!(kept.log_ok().to_bits(), restored.log_ok().to_bits());
        }
        prop_assert_eq!(kept, restored);
    }

    #[test]
    fn means_ignore_what_is_no_number_and_survive_a_restart(
        values in prop::collection::vec(-2.0..8.0_f64, 1..50),
    ) {
        let spread = Spread { variance: 0.5, long_run_factor: 2.0 };
        let mut with = MeanMonitor::new(MeanSettings::with_history(0.0, 0.01, spread));
        let mut without = MeanMonitor::new(MeanSettings::without_history(0.0, 0.01));
        let mut bounded = BoundedMeanMonitor::new(4.5, 1.0, 5.0, Levels::default()).unwrap();
        for value in values {
            with.update(value, 10.0);
            without.update(value, 10.0);
            bounded.update(value, 10.0, 1.3, 2.0);
            let before = (with.clone(), without.clone(), bounded.clone());
            for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
                with.update(broken, 10.0);
                without.update(broken, 10.0);
                bounded.update(if broken == 1e300 { f64::NAN } else { broken }, 10.0, 1.3, 2.0);
                bounded.update(value, 10.0, f64::NAN, 2.0);
            }
            prop_assert_eq!(&before, &(with.clone(), without.clone(), bounded.clone()));
            (with, without, bounded) = round_trip(&(with, without, bounded));
        }
    }
}

#[test]
fn one_region_pooled_is_that_region() {
    let mut region = count_monitor(Family::Poisson, Limit::difference(0.001));
    let mut pool = PooledMonitor::new(Levels::default());
    for poll in 0..30_u32 {
        if poll == 12 {
            region.traffic_step();
            pool.traffic_step();
        }
        let events = f64::from(poll % 5);
        let window = Window::new(Arm::new(events, 500.0), Arm::new(9.0, 9000.0), 10.0);
        let evidence = region.update(&window, &Conditions::default());
        pool.update([&evidence], 10.0, 2.0);
        assert_eq!(region.log_bad(), pool.log_bad());
        assert_eq!(region.log_ok(), pool.log_ok());
    }
}

#[test]
fn regions_that_agree_find_harm_sooner_than_any_alone() {
    let mut regions = vec![count_monitor(Family::Poisson, Limit::difference(0.001)); 3];
    let mut pool = PooledMonitor::new(Levels::default());
    let window = Window::new(Arm::new(2.0, 500.0), Arm::new(9.0, 9000.0), 10.0);
    for _ in 0..40 {
        let evidence: Vec<Evidence> = regions
            .iter_mut()
            .map(|region| region.update(&window, &Conditions::default()))
            .collect();
        pool.update(&evidence, 10.0, 2.0);
    }
    assert!(
        pool.log_bad() > 1.5 * regions[0].log_bad(),
        "{} {}",
        pool.log_bad(),
        regions[0].log_bad()
    );
}

#[test]
fn one_poll_alone_never_decides() {
    for quorum in [2.0, 3.0] {
        let mut monitor = count_monitor(Family::Poisson, Limit::difference(0.001));
        let disaster = Window::new(Arm::new(9000.0, 9000.0), Arm::new(9.0, 9000.0), 10.0);
        let conditions = Conditions { quorum, ..Conditions::default() };
        let mut polls = 0.0;
        while monitor.log_bad() < 100.0_f64.ln() {
            monitor.update(&disaster, &conditions);
            polls += 1.0;
        }
        assert_eq!(polls, quorum);
    }
}

#[test]
fn an_old_proof_does_not_outlive_a_regression() {
    let mut monitor = count_monitor(Family::Poisson, Limit::difference(0.001));
    let fine = Window::new(Arm::new(5.0, 5000.0), Arm::new(9.0, 9000.0), 10.0);
    for _ in 0..500 {
        monitor.update(&fine, &Conditions::default());
    }
    assert!(monitor.log_ok() <= 400.0_f64.ln() + 1e-9 && monitor.log_ok() > 20.0_f64.ln());
    let worse = Window::new(Arm::new(25.0, 5000.0), Arm::new(9.0, 9000.0), 10.0);
    let mut polls = 0;
    while monitor.log_ok() >= 20.0_f64.ln() {
        monitor.update(&worse, &Conditions::default());
        polls += 1;
    }
    assert!(polls <= 2, "{polls}");
}

#[test]
fn pausing_keeps_the_proof_where_it_is() {
    let mut monitor = count_monitor(Family::Poisson, Limit::difference(0.001));
    let before = monitor.log_ok();
    let fine = Window::new(Arm::new(0.0, 5000.0), Arm::new(9.0, 9000.0), 10.0);
    monitor.update(&fine, &Conditions::default().warming_up(Some(5.0)));
    assert_eq!(monitor.log_ok(), before);
    monitor.update(&fine, &Conditions::default());
    assert!(monitor.log_ok() > before);
}

#[test]
fn weeks_of_silence_and_of_perfection_leave_a_usable_monitor() {
    let mut monitor = count_monitor(Family::Poisson, Limit::difference(0.001));
    let fine = Window::new(Arm::new(0.0, 500.0), Arm::new(0.0, 9000.0), 3600.0);
    for _ in 0..2000 {
        monitor.update(&Window::empty(3600.0), &Conditions::default());
        monitor.update(&fine, &Conditions::default());
    }
    assert!(monitor.log_ok() > 20.0_f64.ln());
    let worse = Window::new(Arm::new(50.0, 500.0), Arm::new(0.0, 9000.0), 10.0);
    // Cash halves every 30 minutes, so after weeks a finding takes more polls, but it comes.
    let mut polls = 0;
    while monitor.log_bad() < 100.0_f64.ln() {
        monitor.update(&worse, &Conditions::default());
        polls += 1;
        assert!(polls < 60, "{}", monitor.log_bad());
    }
    round_trip(&monitor);
}
