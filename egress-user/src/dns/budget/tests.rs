//! Names as software asks for them, and as tunnels do.

use super::*;

#[test]
fn questions_are_counted_in_any_minute() {
    let budget = Budget { questions_per_minute: 3, ..Budget::default() };
    let mut ledger = Ledger::default();
    for (second, expected) in [
        (100, Ok(())),
        (100, Ok(())),
        (130, Ok(())),
        (130, Err(OverBudget::Questions)),
        (159, Err(OverBudget::Questions)),
        (160, Ok(())),
        (161, Ok(())),
        (162, Err(OverBudget::Questions)),
        (190, Ok(())),
    ] {
        assert_eq!(ledger.charge(&budget, &name("a.example.com"), second), expected, "second {second}");
    }
}

#[test]
fn different_names_are_counted_in_any_hour() {
    let budget = Budget { names_per_hour: 2, ..Budget::default() };
    let mut ledger = Ledger::default();
    for (second, asked, expected) in [
        (0, "a.example.com", Ok(())),
        (1, "b.example.com", Ok(())),
        (2, "c.example.com", Err(OverBudget::Names)),
        (1800, "a.example.com", Ok(())),
        (3600, "c.example.com", Err(OverBudget::Names)),
        (3601, "c.example.com", Ok(())),
        (3602, "b.example.com", Err(OverBudget::Names)),
        (5400, "b.example.com", Ok(())),
    ] {
        assert_eq!(ledger.charge(&budget, &name(asked), second), expected, "{asked} in second {second}");
    }
}

#[test]
fn a_ledger_is_as_large_as_its_budget_and_empty_after_an_hour() {
    let budget = Budget { questions_per_minute: u32::MAX, names_per_hour: 50, ..Budget::default() };
    let mut ledger = Ledger::default();
    let ask = |index| ledger.charge(&budget, &name(&format!("{}.example.com", digits(index, 32))), index / 100);
    assert_eq!((0..10_000).flat_map(ask).count(), 50);
    assert!(ledger.names.len() <= 50 && ledger.random.len() <= 50 && ledger.questions.len() <= 60);
    assert_eq!(ledger.names.last.len(), ledger.names.by_age.len());
    assert!(!ledger.is_empty());
    ledger.forget(100 + HOUR_SECONDS);
    assert_eq!(ledger, Ledger::default());
}

#[test]
fn software_stays_within_the_default_budget() {
    let mut names: Vec<String> = Vec::new();
    for index in 0..60_u64 {
        let hash = digits(index, 36);
        names.extend([
            format!("rr{}---sn-{}.googlevideo.com", index % 9, &hash[..8]),
            format!("d{}.cloudfront.example.com", &hash[..13]),
            format!("ec2-203-0-113-{index}.compute-1.example.com"),
            format!("bucket-{index}.s3.example.com"),
            format!("{}.service.example.com", uuid(index)),
            format!("mirror{index}.debian.example.org"),
            format!("cache-fra-etou{index}-fra.hosts.example.net"),
            format!("{}.tenant.example.net", digits(index % 4, 16)),
            // A page that keeps strangers' scripts apart has a name with a hash for each.
            if index % 3 == 0 { format!("{hash}.usercontent.example") } else { format!("static{index}.example") },
        ]);
    }
    let mut ledger = Ledger::default();
    for (second, asked) in (0_u64..).zip(&names) {
        assert_eq!(ledger.charge(&Budget::default(), &name(asked), second), Ok(()), "{asked}");
    }
    assert!(names.len() > 500 && ledger.names.len() > NAMES_JUDGED_MIN);
}

#[test]
fn a_label_that_many_names_share_counts_once() {
    let mut ledger = Ledger::default();
    for index in 0..200 {
        let asked = format!("host{index}.{}.cluster.example.com", digits(1, 16));
        assert_eq!(ledger.charge(&Budget::default(), &name(&asked), index), Ok(()), "{asked}");
    }
}

#[test]
fn tunnels_are_stopped_early() {
    let hexadecimal = |index| format!("{}.t.example.com", digits(index, 16));
    let base32 = |index| format!("{}.{}.t.example.com", digits(index, 32), digits(index + 7777, 32));
    let tunnels: [(&str, &dyn Fn(u64) -> String); 2] = [("hexadecimal", &hexadecimal), ("base32", &base32)];
    for (what, tunnel) in tunnels {
        let mut ledger = Ledger::default();
        let charge = |index| ledger.charge(&Budget::default(), &name(&tunnel(index)), index);
        let passed = (0..1000).flat_map(charge).count();
        assert!(passed <= NAMES_JUDGED_MIN, "{passed} names of a tunnel in {what} passed");
    }
    // Names that look like names hide it, and run into the other limit.
    let mut ledger = Ledger::default();
    let mut passed = 0;
    for index in 0..10_000 {
        let asked = if index % 2 == 0 { hexadecimal(index) } else { format!("host{index}.example.com") };
        passed += usize::from(ledger.charge(&Budget::default(), &name(&asked), index / 4).is_ok());
    }
    assert!(passed <= 1000, "{passed} names passed");
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// 32 digits that look random, the same for the same number (splitmix64).
fn digits(seed: u64, radix: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let digit = |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        char::from_digit(u32::try_from((mixed ^ (mixed >> 31)) % radix).unwrap(), 36).unwrap()
    };
    (0..32).map(digit).collect()
}

fn uuid(seed: u64) -> String {
    let text = digits(seed, 16);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}
