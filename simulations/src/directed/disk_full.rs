//! Disks that are nearly full: users' writes are refused where they would need the room, everything else goes on, and it heals.

use super::{MAPS, NODE_GRACE_S, Stage, done, play, refused};
use http::{Method, StatusCode};
use seams::Room;
use std::time::Duration;
use tokio::time::sleep;

const TOTAL: u64 = 100 << 30;
/// The servers look every 2 s, and ask each other then.
const LOOKS: Duration = Duration::from_secs(5);

/// How many of a hundred GiB are free on these servers' disks; 50 on the others'. The reserve is 5.
async fn free(stage: &Stage, few: &[(usize, u64)]) {
    for (index, server) in stage.cluster.servers.iter().enumerate() {
        let found = few.iter().find(|(which, _)| *which == index);
        let free = found.map_or(50, |(_, free)| *free) << 30;
        server.disks.set_room(Room { total: TOTAL, free });
    }
    sleep(LOOKS).await;
}

#[test]
fn the_leader_or_a_majority_without_room_refuses_users_and_nobody_else() {
    play(async {
        let stage = Stage::set(2, None).await;
        let (leader, followers) = (stage.leader().unwrap(), stage.followers());
        let names: Vec<_> = (0..3).map(|index| stage.name(index)).collect();
        let mut number = 0;
        let mut writes = async |fine: bool, says: &[&str]| {
            for server in 0..3 {
                number += 1;
                let answer = stage.create(server, &format!("map-{number}")).await;
                if fine {
                    done(answer);
                    continue;
                }
                let (code, message) = refused(answer);
                assert_eq!(code, StatusCode::INSUFFICIENT_STORAGE, "{message}");
                for part in says {
                    assert!(message.contains(part), "{part:?} is not in {message:?}");
                }
                // A deletion is an event too, and frees nothing.
                let path = format!("{MAPS}/map-1");
                let (code, _) = refused(stage.ask(server, Method::DELETE, &path, None).await);
                assert_eq!(code, StatusCode::INSUFFICIENT_STORAGE);
                done(stage.ask(server, Method::GET, &path, None).await);
            }
        };
        free(&stage, &[]).await;
        writes(true, &[]).await;
        // A follower alone stores what it can; the other two are a majority.
        free(&stage, &[(followers[0], 4)]).await;
        writes(true, &[]).await;
        let warning = stage.status(followers[0]).warnings.join(" ");
        assert!(
            warning.contains("4.0 GiB free of 100.0 GiB, below its reserve of 5.0 GiB"),
            "{warning}"
        );
        free(&stage, &[(leader, 4)]).await;
        let says = format!("{} has 4.0 GiB free of 100.0 GiB", names[leader]);
        writes(false, &[&says, "and it leads"]).await;
        free(&stage, &[(followers[0], 4), (followers[1], 3)]).await;
        let says: Vec<_> = [(followers[0], 4), (followers[1], 3)]
            .iter()
            .map(|(index, free)| format!("{} has {free}.0 GiB free", names[*index]))
            .collect();
        writes(
            false,
            &["only 1 of 3 servers have room", &says[0], &says[1]],
        )
        .await;

        // Long past the grace nothing is lost: sessions, reports and the reconcilers' own go on, on full disks too.
        free(&stage, &[(0, 0), (1, 0), (2, 0)]).await;
        sleep(Duration::from_secs(3 * NODE_GRACE_S)).await;
        writes(false, &["only 0 of 3 servers have room"]).await;
        let view = stage.core(leader).view();
        assert_eq!(view.sessions().count(), 2);
        assert!(view.sessions().all(|(_, session)| session.lost.is_none()));
        let before = view.revision;
        stage.cluster.net.break_connections(&crate::agents::name(1));
        stage
            .until("its agent to be back", 20, async || {
                (stage.core(leader).view().revision > before).then_some(())
            })
            .await;

        free(&stage, &[]).await;
        writes(true, &[]).await;
        for server in 0..3 {
            assert_eq!(stage.status(server).warnings, Vec::<String>::new());
        }
    });
}
