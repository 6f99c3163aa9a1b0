//! Completion scripts, as a shell loads them.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::bellhop;

#[tokio::test]
async fn bash_completes_commands_and_options() {
    let script = bellhop(&["completions", "bash"], &[], b"")
        .await
        .succeeded();
    let complete = "COMP_WORDS=(bellhop rules p); COMP_CWORD=2; _bellhop bellhop p rules; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash");
    bash.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut bash = bash.spawn().unwrap();
    let mut input = bash.stdin.take().unwrap();
    input
        .write_all(format!("{script}\n{complete}\n").as_bytes())
        .await
        .unwrap();
    drop(input);
    let output = bash.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "put\n");
}

#[tokio::test]
async fn every_shell_gets_a_script() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = bellhop(&["completions", shell], &[], b"").await.succeeded();
        assert!(script.contains("repartition"), "{shell}: {script}");
    }
}
