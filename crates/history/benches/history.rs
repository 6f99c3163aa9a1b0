//! Rows a second in bulk, beside the same rows in a bare table; memory for each row in flight; and
//! how long questions take.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // It measures real time, and a benchmark that cannot go on has failed.

use std::time::{Duration, Instant};

use bellhop_history::{Entry, History, HistoryUrl, Query};
use bellhop_testkit::postgres;
use fastrand::Rng;

const USERS: usize = 100_000;
const BATCH: usize = 5_000;
const BEGIN_MS: i64 = 1_795_000_000_000;
/// Reminders that are published in a millisecond.
const PER_MS: usize = 20;
const ROUNDS: usize = 200;
/// A kind of question fails above this, at the median.
const LIMIT: Duration = Duration::from_millis(20);

/// Reminders as business systems publish them: words by Zipf's law, every fourth text in Chinese.
struct Made {
    chance: Rng,
    words: Vec<String>,
    ideographs: Vec<char>,
    nth: usize,
}

impl Made {
    fn new() -> Self {
        let mut chance = Rng::with_seed(7);
        let letters: Vec<char> = "eeeetttaaaooiinnsshhrrdlcumwfgypbvkxqjz".chars().collect();
        let word = |chance: &mut Rng| {
            (0..chance.usize(2..10))
                .map(|_| letters[chance.usize(..letters.len())])
                .collect()
        };
        let words = (0..20_000).map(|_| word(&mut chance)).collect();
        let ideographs = (0..3_500)
            .filter_map(|nth| char::from_u32(0x4e00 + nth * 5))
            .collect();
        Self {
            chance,
            words,
            ideographs,
            nth: 0,
        }
    }

    /// A place by Zipf's law: the first is as likely as all from the second to the square root.
    fn zipf(&mut self, among: usize) -> usize {
        ((among as f64).powf(self.chance.f64()) - 1.0) as usize
    }

    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::new();
        let is_chinese = self.chance.u8(..4) == 0;
        while text.len() < bytes {
            if is_chinese {
                let nth = self.zipf(self.ideographs.len());
                text.push(self.ideographs[nth]);
            } else {
                let nth = self.zipf(self.words.len());
                text.push_str(&self.words[nth]);
                text.push(' ');
            }
        }
        text
    }

    fn reminder(&mut self) -> Entry {
        let nth = self.nth;
        self.nth += 1;
        let published_ms = BEGIN_MS + (nth / PER_MS) as i64;
        let published_at = jiff::Timestamp::from_millisecond(published_ms).unwrap();
        let source = format!("system-{}", self.zipf(20));
        let user = format!("user-{}", self.chance.usize(..USERS));
        let (id, set) = (format!("inv-{nth}"), format!("2026-11-22/{}", nth / 1_000));
        let tag = format!("tag-{}", self.zipf(50));
        let content = format!("Invoice {} {}", self.chance.u32(..1_000_000), self.text(85));
        let reminder = serde_json::json!({
            "id": id, "source": source, "set": set, "user": user, "title": "Invoice due", "content": content,
            "tags": [tag], "priority": "normal", "published_at": published_at,
        });
        let outcome = if self.chance.u8(..50) == 0 {
            "parked"
        } else {
            "delivered"
        };
        let mut entry = Entry {
            source,
            id,
            set,
            user: Some(user),
            published_ms,
            outcome: String::new(),
            at_ms: 0,
            step: String::new(),
            reminder: Some(reminder.to_string()),
        };
        step(&mut entry, outcome, 4);
        entry
    }

    /// Returns a batch of the service; later deliveries go to `parked`.
    fn batch(&mut self, parked: &mut Vec<Entry>) -> Vec<Entry> {
        let mut batch = std::mem::take(parked);
        while batch.len() < BATCH {
            let entry = self.reminder();
            if entry.outcome == "parked" {
                let mut later = Entry {
                    reminder: None,
                    ..entry.clone()
                };
                step(&mut later, "delivered", 60_000);
                parked.push(later);
            }
            batch.push(entry);
        }
        batch
    }
}

fn step(entry: &mut Entry, outcome: &str, after_ms: i64) {
    entry.at_ms = entry.published_ms + after_ms;
    entry.outcome = outcome.to_owned();
    let at = jiff::Timestamp::from_millisecond(entry.at_ms).unwrap();
    entry.step = format!(r#"{{"outcome":"{outcome}","at":"{at}","instance":"app-1"}}"#);
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let (mut rows, mut urls) = (2_000_000, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rows" => {
                rows = arguments
                    .next()
                    .and_then(|rows| rows.parse().ok())
                    .expect("--rows has a number")
            }
            url => urls.push(url.to_owned()),
        }
    }
    let dir = tempfile::Builder::new()
        .prefix("bellhop-bench-")
        .tempdir_in(env!("CARGO_MANIFEST_DIR"))
        .unwrap();
    if urls.is_empty() {
        urls.push(format!(
            "sqlite:{}",
            dir.path().join("history.db").display()
        ));
        urls.extend(postgres::database().await);
    }
    let mut is_quick = true;
    for url in urls {
        let url: HistoryUrl = url.parse().unwrap();
        println!("\n== {}", url.to_string().split(':').next().unwrap());
        bare(&url, rows.min(200_000)).await;
        let history = History::open(&url).await.unwrap();
        fill(&history, rows).await;
        is_quick &= ask(&history, rows).await;
    }
    drop(dir); // Exiting would leave it behind.
    if !is_quick {
        std::process::exit(1);
    }
}

/// The same rows in a table without an index, as the library writes them with the least around
/// them.
async fn bare(url: &HistoryUrl, rows: usize) {
    let mut made = Made::new();
    let batches: Vec<Vec<Entry>> = (0..rows / BATCH)
        .map(|_| made.batch(&mut Vec::new()))
        .collect();
    let began = Instant::now();
    match url {
        HistoryUrl::Sqlite(path) => {
            let mut file = rusqlite::Connection::open(path.with_extension("bare")).unwrap();
            file.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE bare (a, b, c, d, e, f, g)",
            )
            .unwrap();
            for batch in &batches {
                let change = file.transaction().unwrap();
                for e in batch {
                    let mut insert = change
                        .prepare_cached("INSERT INTO bare VALUES (?, ?, ?, ?, ?, ?, ?)")
                        .unwrap();
                    insert
                        .execute((
                            &e.source,
                            &e.id,
                            &e.user,
                            &e.outcome,
                            e.at_ms,
                            &e.reminder,
                            &e.step,
                        ))
                        .unwrap();
                }
                change.commit().unwrap();
            }
        }
        HistoryUrl::Postgres(url) => {
            let client = postgres::connect(url.with_password()).await.unwrap();
            client
                .batch_execute(
                    "CREATE TABLE bare (a text, b text, c text, d text, e bigint, f text, g text)",
                )
                .await
                .unwrap();
            for batch in &batches {
                use tokio_postgres::types::Type;
                let sink = client.copy_in("COPY bare FROM STDIN BINARY").await.unwrap();
                let t = Type::TEXT;
                let types = [
                    t.clone(),
                    t.clone(),
                    t.clone(),
                    t.clone(),
                    Type::INT8,
                    t.clone(),
                    t,
                ];
                let writer = tokio_postgres::binary_copy::BinaryCopyInWriter::new(sink, &types);
                let mut writer = std::pin::pin!(writer);
                for e in batch {
                    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
                        &e.source,
                        &e.id,
                        &e.user,
                        &e.outcome,
                        &e.at_ms,
                        &e.reminder,
                        &e.step,
                    ];
                    writer.as_mut().write(&row).await.unwrap();
                }
                writer.finish().await.unwrap();
            }
        }
        HistoryUrl::None => {}
    }
    println!(
        "bare table: {:.0} rows/s",
        rows as f64 / began.elapsed().as_secs_f64()
    );
}

async fn fill(history: &History, rows: usize) {
    let (mut made, mut parked) = (Made::new(), Vec::new());
    let mut busy = Duration::ZERO;
    let cpu = cpu_seconds();
    let (mut first, mut slowest, mut most_memory) = (None, Duration::ZERO, 0);
    while made.nth < rows {
        let before = memory();
        let batch = made.batch(&mut parked);
        let began = Instant::now();
        history.write(batch).await.unwrap();
        let took = began.elapsed();
        busy += took;
        slowest = slowest.max(took);
        if made.nth <= rows / 10 {
            first = Some((made.nth, busy));
        } else {
            most_memory = most_memory.max(memory().saturating_sub(before) / BATCH);
        }
    }
    let rate = |(rows, busy): (usize, Duration)| rows as f64 / busy.as_secs_f64();
    println!(
        "{rows} rows with all indexes: {:.0} rows/s ({:.0} of the first tenth), slowest batch {slowest:?}, {} KiB resident",
        rate((made.nth, busy)),
        first.map_or(0.0, rate),
        memory() / 1024,
    );
    println!(
        "CPU of this process, with the making of the rows: {:.0} s",
        cpu_seconds() - cpu
    );
    println!("memory grew by at most {most_memory} B for each row of a batch");
}

/// Resident bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()
    });
    kib.unwrap_or(0usize) * 1024
}

/// Processor time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Asks each kind of question, with other words each time. Answers whether all were quick.
async fn ask(history: &History, rows: usize) -> bool {
    type Ask = fn(&mut Made, usize, Query) -> Query;
    let kinds: [(&str, Ask); 17] = [
        ("newest", |_, _, q| q),
        ("user", |made, _, q| Query {
            user: Some(format!("user-{}", made.chance.usize(..USERS))),
            ..q
        }),
        ("source", |made, _, q| Query {
            source: Some(format!("system-{}", made.zipf(20))),
            ..q
        }),
        ("id", |made, rows, q| Query {
            id: Some(format!("inv-{}", made.chance.usize(..rows))),
            ..q
        }),
        ("tag", |made, _, q| Query {
            tag: Some(format!("tag-{}", made.zipf(50))),
            ..q
        }),
        ("outcome, common", |_, _, q| Query {
            outcome: Some("delivered".into()),
            ..q
        }),
        ("outcome, rare", |_, _, q| Query {
            outcome: Some("parked".into()),
            ..q
        }),
        ("time", |made, rows, q| {
            let from = BEGIN_MS + made.chance.usize(..rows / PER_MS) as i64;
            Query {
                from_ms: Some(from),
                to_ms: Some(from + 1_000),
                ..q
            }
        }),
        ("tag and time", |made, rows, q| {
            let from = BEGIN_MS + made.chance.usize(..rows / PER_MS) as i64;
            Query {
                tag: Some(format!("tag-{}", made.zipf(50))),
                from_ms: Some(from),
                to_ms: Some(from + 1_000),
                ..q
            }
        }),
        ("source and outcome, rare", |made, _, q| Query {
            source: Some(format!("system-{}", made.zipf(20))),
            outcome: Some("parked".into()),
            ..q
        }),
        ("contains, common", |made, _, q| {
            let nth = made.zipf(200);
            Query {
                contains: Some(made.words[nth].clone()),
                ..q
            }
        }),
        ("contains, rare", |made, _, q| {
            let nth = made.chance.usize(10_000..20_000);
            Query {
                contains: Some(made.words[nth].clone()),
                ..q
            }
        }),
        ("contains, a number", |made, _, q| Query {
            contains: Some(made.chance.u32(100_000..1_000_000).to_string()),
            ..q
        }),
        ("contains, two ideographs", |made, _, q| {
            let two = [made.zipf(3_500), made.zipf(3_500)]
                .map(|nth| made.ideographs[nth.min(made.ideographs.len() - 1)]);
            Query {
                contains: Some(two.iter().collect()),
                ..q
            }
        }),
        ("user and contains", |made, _, q| {
            let nth = made.zipf(200);
            let user = Some(format!("user-{}", made.chance.usize(..USERS)));
            Query {
                user,
                contains: Some(made.words[nth].clone()),
                ..q
            }
        }),
        ("tag and contains, rare", |made, _, q| {
            let nth = made.chance.usize(10_000..20_000);
            Query {
                tag: Some(format!("tag-{}", made.zipf(50))),
                contains: Some(made.words[nth].clone()),
                ..q
            }
        }),
        ("deep cursor", |_, _, q| q),
    ];
    let deep = Query {
        to_ms: Some(BEGIN_MS + (rows / PER_MS / 2) as i64),
        limit: 1,
        ..Query::default()
    };
    let deep = history.find(&deep).await.unwrap().next;
    let mut made = Made::new();
    let mut is_quick = true;
    println!("{:<28}{:>9}{:>9}{:>9}", "", "median", "p99", "rows");
    for (name, kind) in kinds {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let before = if name == "deep cursor" { deep } else { None };
            let query = kind(
                &mut made,
                rows,
                Query {
                    limit: 100,
                    before,
                    ..Query::default()
                },
            );
            if times.is_empty() {
                is_quick &= uses_an_index(history, &query).await;
            }
            let began = Instant::now();
            found += history.find(&query).await.unwrap().reminders.len();
            times.push(began.elapsed());
        }
        is_quick &= show(name, times, found);
    }
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let nth = made.chance.usize(..rows);
        let began = Instant::now();
        // Its source is one of 20; whether it is this one is of no account.
        history
            .why("system-1", &format!("inv-{nth}"), None)
            .await
            .unwrap();
        times.push(began.elapsed());
    }
    is_quick & show("why", times, ROUNDS)
}

/// Returns true if no statement of this query reads a whole table, or sorts its result.
async fn uses_an_index(history: &History, query: &Query) -> bool {
    let plan = history.explain(query).await.unwrap();
    let is_scan = |line: &&str| {
        line.starts_with("SCAN r") || line.starts_with("SCAN t") || line.contains("Seq Scan on")
    };
    let scan = plan.lines().find(is_scan);
    scan.iter().for_each(|line| println!("{query:?}: {line}"));
    scan.is_none()
}

fn show(name: &str, mut times: Vec<Duration>, found: usize) -> bool {
    times.sort();
    let ms = |nth: usize| format!("{:.2} ms", times[nth].as_secs_f64() * 1e3);
    let is_quick = times[times.len() / 2] < LIMIT;
    let verdict = if is_quick { "" } else { "  too slow" };
    println!(
        "{name:<28}{:>9}{:>9}{:>9}{verdict}",
        ms(times.len() / 2),
        ms(times.len() * 99 / 100),
        found / ROUNDS
    );
    is_quick
}
