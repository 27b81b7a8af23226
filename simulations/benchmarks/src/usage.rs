//! What processes have used, from /proc: CPU, bytes given to the disk, resident memory.

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use std::ops::Sub;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_s: f64,
    /// What was handed to the block layer: journals and compaction included, the page cache's own copies not.
    pub written_bytes: f64,
}

impl Usage {
    /// Of these processes together.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let stat = read(*pid, "stat")?;
            let io = read(*pid, "io")?;
            sum.cpu_s += cpu_ticks(&stat).context("/proc/PID/stat has an unknown form")? as f64
                / ticks_per_s();
            sum.written_bytes += field(&io, "write_bytes:")
                .context("/proc/PID/io has no write_bytes: the kernel counts no I/O of tasks")?
                as f64;
        }
        Ok(sum)
    }

    pub fn own() -> Result<Self> {
        Self::of(&[std::process::id()])
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = read(pid, "status")?;
    let kib = field(&status, "VmRSS:").context("/proc/PID/status has no VmRSS")?;
    Ok(kib * 1024)
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}: has it ended?"))
}

/// User and system time. The command's name is in brackets and may hold spaces: what follows the last bracket is counted.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn ticks_per_s() -> f64 {
    match sysconf(SysconfVar::CLK_TCK) {
        Ok(Some(ticks)) if ticks > 0 => ticks as f64,
        // What Linux has told programs for thirty years.
        _ => 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 5 0 0 0 700 300 0 0 20 0 1 0 99";
        assert_eq!(cpu_ticks(stat), Some(1_000));
        let io = "rchar: 1\nwchar: 2\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n";
        assert_eq!(field(io, "write_bytes:"), Some(4_096));
        assert_eq!(field("VmRSS:\t   12 kB\n", "VmRSS:"), Some(12));
        assert!(Usage::own().unwrap().cpu_s >= 0.0);
    }
}
