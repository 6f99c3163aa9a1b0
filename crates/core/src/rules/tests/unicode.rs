//! Unicode's own test suites, from the packages that have them: icu_segmenter, icu_normalizer and
//! caseless.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use crate::rules::folding::Folding;
use crate::rules::folding::clusters;
use crate::rules::words::{classes, is_boundary};

/// Reads a file of a package that this crate depends on, where cargo has it.
fn package_file(package: &str, file: &str) -> String {
    static PACKAGES: LazyLock<Value> = LazyLock::new(|| {
        let cargo = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version=1",
                "--offline",
                "--manifest-path",
            ])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .output()
            .expect("cargo is there");
        assert!(
            cargo.status.success(),
            "{}",
            String::from_utf8_lossy(&cargo.stderr)
        );
        serde_json::from_slice(&cargo.stdout).expect("it is JSON")
    });
    let packages = PACKAGES["packages"].as_array().expect("a list");
    let manifest = packages
        .iter()
        .find(|found| found["name"] == package)
        .and_then(|found| found["manifest_path"].as_str())
        .unwrap_or_else(|| panic!("{package} is a dependency"));
    let path = PathBuf::from(manifest).with_file_name(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the lines of a data file without comments and headings.
fn lines(file: &str) -> impl Iterator<Item = &str> {
    file.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty() && !line.starts_with('@'))
}

fn text(codes: &str) -> String {
    codes
        .split_whitespace()
        .map(|code| {
            let code = u32::from_str_radix(code, 16).expect("a code point");
            char::from_u32(code).expect("a character")
        })
        .collect()
}

/// Returns the parts between the breaks of a line such as `÷ 0061 × 0308 ÷`.
fn parts(line: &str) -> Vec<String> {
    let parts = line.split('÷').map(|part| text(&part.replace('×', " ")));
    parts.filter(|part| !part.is_empty()).collect()
}

#[test]
fn clusters_are_those_of_the_suite() {
    let file = package_file("icu_segmenter", "tests/testdata/GraphemeBreakTest_17.txt");
    let mut count = 0;
    for line in lines(&file) {
        let expected = parts(line);
        let text = expected.concat();
        let found: Vec<_> = clusters(&text).map(|(_, cluster)| cluster).collect();
        assert_eq!(found, expected, "{line}");
        count += 1;
    }
    assert!(count > 700, "{count}");
}

/// Keywords are compared word by word where they are letters and digits; what else the suite joins
/// (`can't`, `3.14`) is ours to split.
#[test]
fn letters_and_digits_join_as_in_the_suite() {
    let file = package_file("icu_segmenter", "tests/testdata/WordBreakTest_17.txt");
    let mut count = 0;
    for line in lines(&file) {
        let words = parts(line);
        let text = words.concat();
        let mut breaks = vec![0];
        for word in &words {
            breaks.push(breaks[breaks.len() - 1] + word.len());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ('א'..='ת').contains(&c);
        let chars: Vec<_> = text.char_indices().collect();
        for pair in chars
            .windows(2)
            .filter(|pair| is_plain(pair[0].1) && is_plain(pair[1].1))
        {
            let at = pair[1].0;
            assert_eq!(
                is_boundary(&text, at, true, classes(true)),
                breaks.contains(&at),
                "{line}"
            );
            count += 1;
        }
        // No word ends inside of a cluster, nor at a character that no reader sees.
        for (at, cluster) in clusters(&text) {
            let is_part = |c: char| classes(true).get(c).is_in_word(true);
            let inner = cluster.char_indices().skip(1).filter(|(_, c)| is_part(*c));
            for (inside, _) in inner.filter(|_| cluster.starts_with(is_part)) {
                assert!(
                    !is_boundary(&text, at + inside, true, classes(true)),
                    "{line}"
                );
            }
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn equivalent_texts_fold_alike() {
    let file = package_file("icu_normalizer", "tests/data/NormalizationTest.txt");
    let exact = Folding::default();
    let width = Folding {
        width: true,
        ..exact
    };
    let mut count = 0;
    for line in lines(&file) {
        let columns: Vec<_> = line.split(';').take(5).map(text).collect();
        let canonical = |at: usize| exact.normalize(&columns[at]).into_owned();
        assert!((0..3).all(|at| canonical(at) == columns[1]), "{line}");
        assert!((3..5).all(|at| canonical(at) == columns[3]), "{line}");
        let folded = |at: usize| width.normalize(&columns[at]).into_owned();
        assert!((0..5).all(|at| folded(at) == folded(3)), "{line}");
        count += 1;
    }
    assert!(count > 19_000, "{count}");
}

#[test]
fn case_folds_as_the_data_says() {
    let file = package_file("caseless", "CaseFolding.txt");
    let plain = Folding {
        case: true,
        ..Folding::default()
    };
    let turkish = Folding {
        turkish: true,
        ..plain
    };
    let mut counts = [0; 2];
    for line in lines(&file) {
        let [code, status, folded, ..] = line.split("; ").collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (one, folded) = (text(code), text(folded.trim_end_matches(';')));
        let (folding, at) = match status {
            "C" | "F" if one != "I" && one != "İ" => (turkish, 0),
            "C" | "F" => (plain, 0),
            "T" => (turkish, 1),
            _ => continue,
        };
        assert_eq!(
            folding.normalize(&one),
            folding.normalize(&folded),
            "{line}"
        );
        counts[at] += 1;
    }
    assert!(counts[0] > 1_400 && counts[1] == 2, "{counts:?}");
}
