//! The speed of rules, compared with two baselines in the same run, round by round:
//!
//! - `bare`: aho-corasick's leftmost-longest `find_iter`, as it chooses its automaton itself, over
//!   text that is normalized already. It counts and does nothing else.
//! - `matcher_rs`: its `process`, which finds all words, over text that is normalized already, with
//!   normalization off.
//!
//! Bellhop folds case and width, finds all keywords, checks words, and masks them. Texts are made
//! up: characters and letters by Zipf's law, a keyword every 100 characters or so. Keywords are
//! made the same way, less those that texts without planted ones have anyway, so that prefixes are
//! common and matches are not. A figure is the median of the rounds' ratios.

use std::collections::HashSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use aho_corasick::{AhoCorasick, MatchKind};
use bellhop_core::rules::document::{Action, Document, Rule};
use bellhop_core::rules::engine::Engine;
use bellhop_core::rules::rewrite::Text;
use fastrand::Rng;
use matcher_rs::{ProcessType, SimpleMatcherBuilder};

const ROUNDS: usize = 15;

#[derive(Clone, Copy, Debug)]
enum Language {
    Chinese,
    English,
}

fn zipf(rng: &mut Rng, n: usize) -> usize {
    ((n as f64 + 1.0).powf(rng.f64()) - 1.0) as usize
}

impl Language {
    fn character(rng: &mut Rng) -> char {
        char::from_u32(0x4e00 + (zipf(rng, 3_000) as u32 * 7_919) % 20_000).expect("an ideograph")
    }

    fn word(rng: &mut Rng) -> String {
        let length = rng.usize(2..10);
        (0..length)
            .map(|_| char::from(b"etaoinshrdlcumwfgypbvkjxqz"[zipf(rng, 26)]))
            .collect()
    }

    /// Text of about so many characters, as people write it.
    fn text(self, rng: &mut Rng, characters: usize) -> String {
        match self {
            Self::Chinese => (0..characters)
                .map(|at| {
                    if at % 40 == 39 {
                        '，'
                    } else {
                        Self::character(rng)
                    }
                })
                .collect(),
            Self::English => {
                let mut text = String::with_capacity(characters + 16);
                while text.len() < characters {
                    let mut word = Self::word(rng);
                    if rng.u8(..8) == 0 {
                        word[..1].make_ascii_uppercase();
                    }
                    text.push_str(&word);
                    text.push(' ');
                }
                text
            }
        }
    }

    fn keyword(self, rng: &mut Rng) -> String {
        match self {
            Self::Chinese => (0..rng.usize(2..6)).map(|_| Self::character(rng)).collect(),
            Self::English if rng.bool() => format!("{} {}", Self::word(rng), Self::word(rng)),
            Self::English => format!("{}{}", Self::word(rng), Self::word(rng)),
        }
    }

    fn keywords(self, rng: &mut Rng, count: usize) -> Vec<String> {
        let mut keywords = HashSet::new();
        while keywords.len() < count * 2 {
            keywords.insert(self.keyword(rng));
        }
        let mut keywords: Vec<_> = keywords.into_iter().collect();
        keywords.sort_unstable();
        rng.shuffle(&mut keywords);
        let automaton = AhoCorasick::new(&keywords).expect("it fits");
        let plain = self.text(rng, 300_000).to_lowercase();
        let common: HashSet<_> = automaton
            .find_overlapping_iter(&plain)
            .map(|found| found.pattern().as_usize())
            .collect();
        let rare = keywords
            .into_iter()
            .enumerate()
            .filter(|(at, _)| !common.contains(at))
            .map(|(_, keyword)| keyword);
        rare.take(count).collect()
    }

    fn text_with(self, rng: &mut Rng, characters: usize, keywords: &[String]) -> String {
        let (mut text, mut count) = (String::new(), 0);
        while count < characters {
            let step = rng.usize(20..180).min(characters - count + 1);
            text.push_str(&self.text(rng, step));
            text.push_str(&keywords[rng.usize(..keywords.len())]);
            text.push(' ');
            count += step;
        }
        text
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = black_box(work());
    (began.elapsed(), result)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(language: Language, count: usize, texts_name: &str, lengths: &[usize]) {
    let mut rng = Rng::with_seed(7);
    let keywords = language.keywords(&mut rng, count);
    let texts: Vec<String> = lengths
        .iter()
        .map(|length| language.text_with(&mut rng, *length, &keywords))
        .collect();
    let normalized: Vec<String> = texts
        .iter()
        .map(|text| text.to_lowercase().replace('，', ","))
        .collect();
    let bytes: usize = texts.iter().map(String::len).sum();

    let rule = Rule {
        name: "r".into(),
        keywords: keywords.clone(),
        patterns: Vec::new(),
        action: Action::Mask { with: "*".into() },
    };
    let document = Document {
        rules: vec![rule],
        ..Document::default()
    };
    let _ = Engine::new(&Document::default()); // Unicode's tables are made once for a process.
    let (building, engine) = timed(|| Engine::new(&document).expect("it compiles"));
    let bare = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(&keywords)
        .expect("it fits");
    let mut builder = SimpleMatcherBuilder::new();
    for (id, keyword) in (0u32..).zip(&keywords) {
        builder = builder.add_word(ProcessType::None, id, keyword);
    }
    let (peer_building, peer) = timed(|| builder.build().expect("it fits"));

    let ours = || {
        texts
            .iter()
            .map(|text| {
                let matches = engine.find(text).expect("there are few");
                let mut text = Text::new(text.clone());
                text.rewrite(&engine, 0, &matches, usize::MAX)
                    .expect("there is no limit");
                black_box(text.text);
                matches.len()
            })
            .sum::<usize>()
    };
    let bare = || {
        normalized
            .iter()
            .map(|text| bare.find_iter(text).count())
            .sum::<usize>()
    };
    let peer = || {
        normalized
            .iter()
            .map(|text| peer.process(text).len())
            .sum::<usize>()
    };
    let rounds: Vec<[f64; 3]> = (0..ROUNDS)
        .map(|_| {
            [timed(ours).0, timed(bare).0, timed(peer).0]
                .map(|time| bytes as f64 / time.as_secs_f64() / 1e6)
        })
        .collect();
    let of = |figure: fn(&[f64; 3]) -> f64| median(rounds.iter().map(figure).collect());
    println!(
        "| {language:?} | {count} | {texts_name} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} | {:.1} | {} / {} / {} |",
        of(|round| round[0]),
        of(|round| round[1]),
        of(|round| round[2]),
        of(|round| round[0] / round[1]),
        of(|round| round[0] / round[2]),
        building.as_secs_f64() * 1e3,
        peer_building.as_secs_f64() * 1e3,
        engine.heap_bytes() as f64 / 1024.0 / 1024.0,
        ours(),
        bare(),
        peer(),
    );
}

fn main() {
    println!(
        "| language | keywords | texts | bellhop MB/s | bare MB/s | matcher_rs MB/s | / bare | / matcher_rs | compiled ms | matcher_rs compiled ms | MiB | found |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for language in [Language::Chinese, Language::English] {
        for count in [1_000, 10_000, 100_000] {
            let lengths: Vec<usize> = (0..400).map(|at| 100 + (at * 997) % 1_900).collect();
            measure(language, count, "100 to 2,000 characters", &lengths);
            measure(language, count, "1 million characters", &[1_000_000]);
        }
    }
}
