//! A minute of kill -9 under a load of writes: a follower, the leader, two at once, all three. Everything is as it was acknowledged last:
//! nothing made or changed is lost, and nothing deleted comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::writes::Writes;

const FOR: Duration = Duration::from_secs(60);
/// Between two killings: less than a member needs to be back sometimes, so that they overlap.
const PAUSE: Duration = Duration::from_millis(2_500);

#[test]
fn everything_is_as_it_was_acknowledged_last() {
    let mut cluster = Cluster::servers();
    let names = ["server-1", "server-2", "server-3"];
    let writes = Writes::start(&cluster, "loop");
    let began = Instant::now();
    let mut killed: BTreeMap<&str, u32> = BTreeMap::new();
    for round in 0.. {
        if began.elapsed() > FOR {
            break;
        }
        let leader = match round % 4 {
            // Which one leads is asked of whoever lives; right after a killing nobody may.
            0 | 2 => cluster.status()["leader"].as_str().map(str::to_string),
            _ => None,
        };
        let victims: Vec<&str> = match (round % 4, &leader) {
            (_, Some(leader)) => names.into_iter().filter(|name| name == leader).collect(),
            (1, _) => vec![names[round % 3]],
            (3, _) if round % 8 == 7 => names.to_vec(),
            _ => vec![names[round % 3], names[(round + 1) % 3]],
        };
        let victims: Vec<&str> = victims
            .into_iter()
            .filter(|name| cluster.pid(name).is_some())
            .collect();
        cluster.kill_9(&victims);
        for victim in victims {
            *killed.entry(victim).or_default() += 1;
        }
        std::thread::sleep(PAUSE);
    }
    cluster.wait_until_back();
    std::thread::sleep(Duration::from_secs(2));
    let acknowledged = writes.finish();
    println!(
        "killed {killed:?}; {} writes acknowledged, longest gap {:.2} s",
        acknowledged.count,
        acknowledged.longest_gap.as_secs_f32()
    );
    assert!(
        killed.values().sum::<u32>() >= 10 && killed.len() == 3,
        "{killed:?}"
    );
    cluster.wait_until_level();
    acknowledged.check_present(&cluster);
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}
