//! Whether a label looks random.
//!
//! Born and Gustafson ("Detecting DNS Tunnels Using Character Frequency Analysis", 2010, arXiv:1004.4358) found that the
//! characters of domain names, and pairs of them, are as unevenly distributed as those of natural languages, and that those
//! of tunnels are not. A label is judged here by the share of its pairs that are common in English. Unlike the entropy of
//! single characters, that also tells long names made of words from short ones made of digits.

/// Characters of the shortest run of letters and digits that is judged. Tunnels fill their labels; what is shorter is a
/// shard, a host number or a group of a UUID, carries few bits, and cannot be told from chance.
const RUN_CHARACTERS_MIN: usize = 16;

/// Pairs of a run of which one at least is a common one unless it looks random. In English more than half of the pairs are
/// common; of random letters and digits one in twenty is, and of hexadecimal digits one in fifty.
const PAIRS_PER_COMMON: usize = 6;

/// The fifty most frequent pairs of letters in English, of which they are more than half: P. Norvig, "English Letter
/// Frequency Counts: Mayzner Revisited" (2013).
const COMMON: &[u8] = b"thheineranreonatenndtiesorteofedisitalarsttontngsehaasouioleve\
comedehiriroicneearacelichllbemasiomur";

/// Whether a label has a run of letters and digits that nobody would have made up. Runs of digits alone do not count:
/// times and numbers of things are such.
pub(super) fn looks_random(label: &str) -> bool {
    label.split(|character: char| !character.is_ascii_alphanumeric()).any(|run| {
        run.len() >= RUN_CHARACTERS_MIN
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
            && is_improbable(run.as_bytes())
    })
}

fn is_improbable(run: &[u8]) -> bool {
    let pairs = run.len().saturating_sub(1);
    let common = run.windows(2).filter(|pair| COMMON.chunks_exact(2).any(|common| common == *pair)).count();
    common * PAIRS_PER_COMMON < pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_made_by_people_do_not_look_random() {
        for label in [
            "www",
            "registry",
            "d1a2b3c4d5e6f7",
            "ec2-203-0-113-7",
            "ip-10-20-30-40",
            "rr3---sn-4g5e6nsz",
            "r5---sn-uxax4vopj5qx-q0n6",
            "my-company-build-artifacts-2024",
            "mycompanybuildartifacts",
            "githubusercontent",
            "googleusercontent",
            "elasticloadbalancing",
            "stackoverflowteams",
            "windowsupdatestorage",
            "kubernetesdashboard",
            "fastlyinsightsnetwork",
            "nodejsdistributions",
            "blobstorageaccountproduction",
            "raspberrypifoundation",
            "servicebusnamespace",
            "cognitiveservices",
            "notificationhubs",
            "123456789012345678",
            "20240131235959000000",
            "9b2c7e8a-1f3d-4c5b-8e9f-0a1b2c3d4e5f",
            "xn--bcher-kva",
            "_acme-challenge",
            "a1b2c3d4e5f6g7h",
        ] {
            assert!(!looks_random(label), "{label}");
        }
    }

    #[test]
    fn labels_made_by_tunnels_look_random() {
        for label in [
            // Hexadecimal, as dnscat2 sends it.
            "7c6b00f1a2b3c4d5e6",
            "2f3101d49a3d0009a54b7f00c1d2e3f4a5b6c7d8",
            "9b2c7e8a1f3d4c5b8e9f0a1b2c3d4e5f",
            // Base32, as iodine sends it.
            "0ibbz82qaxhd2f5vmkwnt3pguy1jcrls4o",
            "yrbmzqk5hfxwj3vdtgnc2ps4alue",
            "mfzwizltoq2dkmrtgyztcnrvge3tqojq",
            // Base64 in lower case.
            "dghpcybpcybhihnly3jldcbtzxnzywdl",
        ] {
            assert!(looks_random(label), "{label}");
        }
    }

    #[test]
    fn the_common_pairs_are_fifty() {
        let mut pairs: Vec<&[u8]> = COMMON.chunks_exact(2).collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!((pairs.len(), COMMON.len()), (50, 100));
    }
}
