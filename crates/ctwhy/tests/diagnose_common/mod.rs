//! The real binary on captures of both sides.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Each test file uses a part.

pub(crate) mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ctwhy_linux::{program, testing};
use serde_json::Value;

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// `ctwhy diagnose ARGS`.
pub(crate) fn diagnose(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctwhy"));
    let output = command.arg("diagnose").args(args).env_remove("NO_COLOR").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A folder of a test's own, empty at its start.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("diagnose").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Is the tool here? Skips the test aloud where it is not.
pub(crate) fn have(tool: &str) -> bool {
    match program::find(tool) {
        Ok(_) => true,
        Err(missing) => {
            testing::skip(&missing);
            false
        }
    }
}

/// The kinds of the NATs of a family.
pub(crate) fn kind<'a>(report: &'a Value, family: &str) -> Vec<&'a str> {
    let nats = report["nats"].as_array().unwrap();
    nats.iter().filter(|nat| nat["family"] == family).map(|nat| nat["kind"].as_str().unwrap()).collect()
}

/// What is said of a protocol by the first NAT of a family.
pub(crate) fn proto<'a>(report: &'a Value, family: &str, protocol: &str) -> &'a Value {
    let nats = report["nats"].as_array().unwrap();
    let nat = nats.iter().find(|nat| nat["family"] == family).unwrap_or(&Value::Null);
    let found = nat["protocols"].as_array().and_then(|all| all.iter().find(|found| found["proto"] == protocol));
    found.unwrap_or(&Value::Null)
}
