//! A member that starts where very many users have associates and routes.

use std::time::Instant;

use crate::memory;
use crate::program::Member;
use crate::size;
use crate::world::{World, names};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_with_many_associates_slows_no_other() {
    let users = 3 * size();
    let mut world = World::start(&[], &[]).await;
    let putting = world
        .abuse(async |world| {
            let keys = names("user", users).into_iter().flat_map(|user| {
                let associates = r#"{"associates":["other-1","other-2"]}"#;
                [
                    (format!("$KV.bellhop_associates.{user}"), associates),
                    (format!("$KV.bellhop_routes.{user}.app"), ""),
                ]
            });
            world
                .store_all(keys.map(|(key, value)| (key, value.to_owned())))
                .await;
        })
        .await;
    world.quiet().await;
    let began = Instant::now();
    let starting = world
        .abuse(async |world| {
            let url = &world.installation.url;
            let settings = ["--set", "http=127.0.0.1:0", "--set", "name=second"];
            let arguments: Vec<String> = ["serve", "--nats", url]
                .iter()
                .chain(&settings)
                .map(|&word| word.to_owned())
                .collect();
            let second = Member::spawn("second", &[], &arguments, world.directory());
            world
                .within("the second member is ready", async |_| {
                    second.is_ready().await
                })
                .await;
            eprintln!(
                "ready after {:.1?} among {users} users with associates and routes",
                began.elapsed()
            );
            second.signal("TERM");
            world
                .within("it has ended", async |_| match second.status() {
                    Some(_) => Ok(()),
                    None => Err("it is running".to_owned()),
                })
                .await;
        })
        .await;
    world.quiet().await;
    let abuses = vec![
        (
            format!("associates and a route are put for each of {users} users"),
            putting,
        ),
        (
            "a second member starts and stops among them".into(),
            starting,
        ),
    ];
    let (_, verdict) = world.judge(abuses, memory::bound(users)).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
}
