//! Plans as rows: what the runtime shows, in brief, against what is to be done, in brief.
//!
//! Shown: `s0+` a ready sandbox of attempt 0, `s0-` one that is not; `web/1@s0=run`, `=new`, `=odd`, `=x3` (ended with code 3 a second ago),
//! `=x3~20` with 20 s of back-off to wait. Done: see `brief`.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::seconds(10_000)
}

fn ago(seconds: i64) -> Timestamp {
    now() - TimeDelta::seconds(seconds)
}

fn pod(spec: Value) -> Pod {
    Pod::parse(&json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec, "status": {}})).unwrap()
}

/// One main container `web`, image `i`.
fn web() -> Value {
    json!({"containers": [{"name": "web", "image": "i"}], "terminationGracePeriodSeconds": 30})
}

fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

pub(crate) fn observed(pod: &Pod, text: &str) -> Observed {
    let mut observed = Observed::default();
    for token in text.split_whitespace() {
        let Some((head, state)) = token.split_once('=') else {
            let (name, ready) = token.split_at(token.len() - 1);
            let attempt = name[1..].parse().unwrap();
            let ips = vec!["10.1.1.1".to_owned()];
            observed.sandboxes.push(Sandbox {
                id: name.into(),
                attempt,
                ready: ready == "+",
                ips,
            });
            continue;
        };
        let (head, sandbox) = head.split_once('@').unwrap();
        let (name, attempt) = head.split_once('/').unwrap();
        let (state, backoff) = state.split_once('~').unwrap_or((state, "0"));
        let (kind, exit_code) = match state {
            "run" => (State::Running, 0),
            "new" => (State::Created, 0),
            "odd" => (State::Unknown, 0),
            ended => (State::Exited, ended[1..].parse().unwrap()),
        };
        observed.containers.push(Container {
            id: format!("{name}/{attempt}"),
            name: name.into(),
            sandbox_id: sandbox.into(),
            attempt: attempt.parse().unwrap(),
            state: kind,
            spec_hash: pod.container(name).map(spec_hash).unwrap_or_default(),
            backoff_s: backoff.parse().unwrap(),
            image: "i".into(),
            image_id: "sha256:i".into(),
            created_at: ago(30),
            started_at: Some(ago(30)),
            finished_at: (kind == State::Exited).then(|| ago(1)),
            exit_code,
            reason: String::new(),
            message: String::new(),
        });
    }
    observed
}

fn brief(plan: &Plan) -> String {
    let mut words: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::PrepareVolumes => "volumes".into(),
            Action::RunSandbox { attempt } => format!("sandbox {attempt}"),
            Action::StartContainer {
                name,
                sandbox_id,
                attempt,
                backoff_s,
            } => {
                format!("start {name}/{attempt}@{sandbox_id}~{backoff_s}")
            }
            Action::StopContainers(stops) => {
                let each: Vec<String> = stops
                    .iter()
                    .map(|stop| {
                        format!(
                            "{}:{}{}",
                            stop.id,
                            stop.grace_s,
                            if stop.hook { "h" } else { "" }
                        )
                    })
                    .collect();
                format!("stop {}", each.join("+"))
            }
            Action::RemoveContainer { id } => format!("remove {id}"),
            Action::StopSandbox { id } => format!("stop {id}"),
            Action::RemoveSandbox { id } => format!("remove {id}"),
            Action::CleanUp => "clean".into(),
            Action::Gone => "gone".into(),
        })
        .collect();
    if plan.ended {
        words.push("ended".into());
    }
    if let Some(at) = plan.look_again {
        words.push(format!("again +{}", (at - now()).num_seconds()));
    }
    words.join(", ")
}

fn ready_memory() -> Memory {
    Memory {
        start_time: ago(100),
        volumes_ready: true,
        ..Memory::default()
    }
}

fn check_with(spec: Value, fate: Fate, memory: &Memory, shown: &str, expected: &str) {
    let pod = pod(spec);
    let observed = observed(&pod, shown);
    let input = Input {
        pod: &pod,
        fate,
        observed: &observed,
        memory,
        now: now(),
    };
    let found = plan(&input);
    assert_eq!(brief(&found), expected, "shown: {shown:?}");
    assert_eq!(found, plan(&input), "the same input plans the same");
}

fn check(spec: Value, shown: &str, expected: &str) {
    check_with(spec, Fate::Run, &ready_memory(), shown, expected);
}

#[test]
fn from_nothing_to_running() {
    check_with(
        web(),
        Fate::Run,
        &Memory {
            start_time: ago(1),
            ..Memory::default()
        },
        "",
        "volumes, sandbox 0",
    );
    check(web(), "", "sandbox 0");
    check(web(), "s0+", "start web/0@s0~0");
    check(web(), "s0+ web/0@s0=run", "");
    // An agent that died between creation and start.
    check(web(), "s0+ web/0@s0=new", "remove web/0");
    check(web(), "s0+ web/0@s0=odd", "stop web/0:30h");
}

#[test]
fn restarts_back_off() {
    check(web(), "s0+ web/0@s0=x1", "start web/1@s0~10");
    check(web(), "s0+ web/1@s0=x1~10", "again +9");
    check(web(), "s0+ web/2@s0=x0~300", "again +299");
    // Two ended ones are kept, older ones go.
    check(
        web(),
        "s0+ web/0@s0=x1 web/1@s0=x1 web/2@s0=run",
        "remove web/0",
    );
    let mut old = pod(web());
    old.spec.restart_policy = RestartPolicy::Always;
    let mut shown = observed(&old, "s0+ web/7@s0=x1~300");
    shown.containers[0].created_at = ago(601);
    let memory = ready_memory();
    let input = Input {
        pod: &old,
        fate: Fate::Run,
        observed: &shown,
        memory: &memory,
        now: now(),
    };
    assert_eq!(
        brief(&plan(&input)),
        "start web/8@s0~10",
        "after ten minutes the back-off begins anew"
    );
    let mut shown = shown.clone();
    shown.containers[0].created_at = ago(400);
    shown.containers[0].finished_at = Some(ago(301));
    let input = Input {
        observed: &shown,
        ..input
    };
    assert_eq!(
        brief(&plan(&input)),
        "start web/8@s0~300",
        "it grows to five minutes and no further"
    );
}

#[test]
fn the_restart_policy_is_kept() {
    let never = || with(web(), "restartPolicy", json!("Never"));
    let on_failure = || with(web(), "restartPolicy", json!("OnFailure"));
    check(never(), "s0+ web/0@s0=x1", "ended");
    check(never(), "s0+ web/0@s0=x0", "ended");
    check(on_failure(), "s0+ web/0@s0=x0", "ended");
    check(on_failure(), "s0+ web/0@s0=x1", "start web/1@s0~10");
    let ended = Memory {
        ended: true,
        ..ready_memory()
    };
    check_with(
        never(),
        Fate::Run,
        &ended,
        "s0+ web/0@s0=x0",
        "stop s0, ended",
    );
    check_with(never(), Fate::Run, &ended, "s0- web/0@s0=x0", "ended");
    // After the sandbox has gone with its container, there is nothing to make a new one for.
    check(never(), "s0- web/0@s0=x137", "ended");
}

#[test]
fn init_containers_go_one_after_another() {
    let spec = || {
        with(
            web(),
            "initContainers",
            json!([{"name": "one", "image": "i"}, {"name": "two", "image": "i"}]),
        )
    };
    check(spec(), "s0+", "start one/0@s0~0");
    check(spec(), "s0+ one/0@s0=run", "");
    check(spec(), "s0+ one/0@s0=x0", "start two/0@s0~0");
    check(spec(), "s0+ one/0@s0=x0 two/0@s0=x0", "start web/0@s0~0");
    check(spec(), "s0+ one/0@s0=x1", "start one/1@s0~10");
    check(spec(), "s0+ one/1@s0=x1~10", "again +9");
    check(
        with(spec(), "restartPolicy", json!("Never")),
        "s0+ one/0@s0=x1",
        "ended",
    );
    // Once main containers were made they are not run again, though their containers may be gone.
    check(spec(), "s0+ web/0@s0=x1", "start web/1@s0~10");
    // In a new sandbox they are.
    check(
        spec(),
        "s0- s1+ one/0@s0=x0 two/0@s0=x0 web/0@s0=x137",
        "start one/1@s1~0",
    );
}

#[test]
fn sidecars_stay() {
    let side = json!({"name": "side", "image": "i", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}});
    let spec = || {
        with(
            with(web(), "initContainers", json!([side])),
            "restartPolicy",
            json!("Never"),
        )
    };
    let verdict = |started: bool| {
        let verdict = Verdict {
            started,
            ready: started,
            failed: None,
        };
        Memory {
            verdicts: [("side/0".to_owned(), verdict)].into(),
            ..ready_memory()
        }
    };
    check(spec(), "s0+", "start side/0@s0~0");
    check_with(spec(), Fate::Run, &verdict(false), "s0+ side/0@s0=run", "");
    check_with(
        spec(),
        Fate::Run,
        &verdict(true),
        "s0+ side/0@s0=run",
        "start web/0@s0~0",
    );
    // It is restarted although the pod never is, and does not keep the pod from ending.
    check(
        spec(),
        "s0+ side/0@s0=x0 web/0@s0=run",
        "start side/1@s0~10",
    );
    check_with(
        spec(),
        Fate::Run,
        &verdict(true),
        "s0+ side/0@s0=run web/0@s0=x0",
        "ended",
    );
    let ended = Memory {
        ended: true,
        ..verdict(true)
    };
    check_with(
        spec(),
        Fate::Run,
        &ended,
        "s0+ side/0@s0=run web/0@s0=x0",
        "stop side/0:30h, ended",
    );
}

#[test]
fn probes_and_changes_restart() {
    let failed = |probe: &'static str| {
        let verdict = Verdict {
            started: true,
            ready: true,
            failed: Some(probe),
        };
        Memory {
            verdicts: [("web/0".to_owned(), verdict)].into(),
            ..ready_memory()
        }
    };
    check_with(
        web(),
        Fate::Run,
        &failed("liveness"),
        "s0+ web/0@s0=run",
        "stop web/0:30h",
    );
    let own = json!([{"name": "web", "image": "i", "livenessProbe": {"terminationGracePeriodSeconds": 3}}]);
    check_with(
        with(web(), "containers", own),
        Fate::Run,
        &failed("liveness"),
        "s0+ web/0@s0=run",
        "stop web/0:3h",
    );
    let changed = pod(with(
        web(),
        "containers",
        json!([{"name": "web", "image": "other"}]),
    ));
    let shown = observed(&pod(web()), "s0+ web/0@s0=run");
    let memory = ready_memory();
    let input = Input {
        pod: &changed,
        fate: Fate::Run,
        observed: &shown,
        memory: &memory,
        now: now(),
    };
    assert_eq!(brief(&plan(&input)), "stop web/0:30h");
}

#[test]
fn a_lost_sandbox_is_replaced() {
    check(web(), "s0- web/0@s0=run", "stop web/0:0");
    check(web(), "s0- web/0@s0=x137", "stop s0, sandbox 1");
    check(web(), "s0- s1+ web/0@s0=x137", "start web/1@s1~10");
    check(web(), "s0- s1+ web/1@s1=run", "remove s0");
    check(
        web(),
        "s0+ s1+ web/0@s0=run web/1@s1=run",
        "stop web/0:0, stop s0",
    );
}

#[test]
fn problems_are_waited_for() {
    let problem = |seconds: i64| Problem {
        reason: "ErrImagePull",
        reason_later: "ImagePullBackOff",
        message: String::new(),
        since: ago(1),
        retry_at: now() + TimeDelta::seconds(seconds),
        backoff_s: 10,
    };
    let held = |seconds| Memory {
        problems: [("web".to_owned(), problem(seconds))].into(),
        ..ready_memory()
    };
    check_with(web(), Fate::Run, &held(5), "s0+", "again +5");
    check_with(web(), Fate::Run, &held(0), "s0+", "start web/0@s0~0");
    let pod_held = |seconds| Memory {
        pod_problem: Some(problem(seconds)),
        volumes_ready: false,
        ..ready_memory()
    };
    check_with(web(), Fate::Run, &pod_held(5), "", "again +5");
    check_with(web(), Fate::Run, &pod_held(0), "", "volumes, sandbox 0");
    check_with(
        web(),
        Fate::Run,
        &pod_held(0),
        "s0+ web/0@s0=run",
        "volumes",
    );
}

#[test]
fn deletion_goes_in_order() {
    let stop = |elapsed: i64| Fate::Stop {
        since: ago(elapsed),
        grace_s: 30,
    };
    let side = json!([{"name": "a", "image": "i", "restartPolicy": "Always"}, {"name": "b", "image": "i", "restartPolicy": "Always"}]);
    let spec = || with(web(), "initContainers", side.clone());
    for (elapsed, shown, expected) in [
        (
            0,
            "s0+ a/0@s0=run b/0@s0=run web/0@s0=run",
            "stop web/0:30h",
        ),
        (10, "s0+ a/0@s0=run b/0@s0=run web/0@s0=x0", "stop b/0:20h"),
        (40, "s0+ a/0@s0=run b/0@s0=x0 web/0@s0=x0", "stop a/0:0"),
        (41, "s0+ a/0@s0=x0 b/0@s0=x0 web/0@s0=x0", "stop s0"),
        (41, "s0- web/0@s0=x0", "remove web/0, stop s0, remove s0"),
        (41, "", "clean, gone"),
    ] {
        check_with(spec(), stop(elapsed), &ready_memory(), shown, expected);
    }
    let hooked = Memory {
        hooked: ["web/0".to_owned()].into(),
        ..ready_memory()
    };
    check_with(
        web(),
        stop(10),
        &hooked,
        "s0+ web/0@s0=run",
        "stop web/0:20",
    );
}

#[test]
fn a_deadline_is_looked_for() {
    let spec = with(web(), "activeDeadlineSeconds", json!(160));
    check(spec.clone(), "s0+ web/0@s0=run", "again +60");
    let passed = Memory {
        deadline_exceeded: true,
        ..ready_memory()
    };
    check_with(
        spec,
        Fate::Run,
        &passed,
        "s0+ web/0@s0=run",
        "stop web/0:30h, ended",
    );
}

/// Phase, Ready and each container's state in brief.
fn told(spec: Value, fate: Fate, memory: &Memory, shown: &str) -> String {
    let pod = pod(spec);
    let observed = observed(&pod, shown);
    let input = Input {
        pod: &pod,
        fate,
        observed: &observed,
        memory,
        now: now(),
    };
    let status = crate::status::pod_status(&input, "192.0.2.1", &Value::Null);
    let ready = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|held| held["type"] == "Ready")
        .unwrap()["status"]
        .clone();
    let mut words = vec![
        status["phase"].as_str().unwrap().to_owned(),
        ready.as_str().unwrap().to_owned(),
    ];
    for list in ["initContainerStatuses", "containerStatuses"] {
        for one in status[list].as_array().into_iter().flatten() {
            let state = one["state"].as_object().unwrap();
            let (kind, detail) = state.iter().next().unwrap();
            let word = match kind.as_str() {
                "running" => "running".to_owned(),
                _ => detail["reason"].as_str().unwrap().to_owned(),
            };
            words.push(format!(
                "{}={word}/{}",
                one["name"].as_str().unwrap(),
                one["restartCount"]
            ));
        }
    }
    words.join(" ")
}

#[test]
fn statuses() {
    let init = || {
        with(
            web(),
            "initContainers",
            json!([{"name": "one", "image": "i"}]),
        )
    };
    let never = |spec: Value| with(spec, "restartPolicy", json!("Never"));
    let probed = || {
        with(
            web(),
            "containers",
            json!([{"name": "web", "image": "i", "readinessProbe": {}}]),
        )
    };
    let run = Fate::Run;
    let stop = Fate::Stop {
        since: ago(1),
        grace_s: 30,
    };
    let plain = ready_memory();
    let ended = Memory {
        ended: true,
        ..ready_memory()
    };
    let unready = Memory {
        verdicts: [(
            "web/0".to_owned(),
            Verdict {
                started: true,
                ready: false,
                failed: None,
            },
        )]
        .into(),
        ..ready_memory()
    };
    for (spec, fate, memory, shown, expected) in [
        (
            web(),
            run,
            &plain,
            "",
            "Pending False web=ContainerCreating/0",
        ),
        (
            web(),
            run,
            &plain,
            "s0+ web/0@s0=run",
            "Running True web=running/0",
        ),
        (
            probed(),
            run,
            &unready,
            "s0+ web/0@s0=run",
            "Running False web=running/0",
        ),
        (
            probed(),
            run,
            &plain,
            "s0+ web/0@s0=run",
            "Running False web=running/0",
        ),
        (
            web(),
            run,
            &plain,
            "s0+ web/0@s0=x1",
            "Running False web=Error/0",
        ),
        (
            web(),
            run,
            &plain,
            "s0+ web/1@s0=x1~10",
            "Running False web=CrashLoopBackOff/1",
        ),
        (
            web(),
            stop,
            &plain,
            "s0+ web/0@s0=x143",
            "Failed False web=Error/0",
        ),
        (
            web(),
            stop,
            &plain,
            "s0+ web/0@s0=x0",
            "Succeeded False web=Completed/0",
        ),
        (
            never(web()),
            run,
            &ended,
            "s0+ web/0@s0=x0",
            "Succeeded False web=Completed/0",
        ),
        (
            never(web()),
            run,
            &ended,
            "s0+ web/0@s0=x2",
            "Failed False web=Error/0",
        ),
        (
            init(),
            run,
            &plain,
            "s0+ one/0@s0=run",
            "Pending False one=running/0 web=PodInitializing/0",
        ),
        (
            init(),
            run,
            &plain,
            "s0+ one/0@s0=x0",
            "Pending False one=Completed/0 web=ContainerCreating/0",
        ),
        (
            init(),
            run,
            &plain,
            "s0+ one/0@s0=x0 web/0@s0=run",
            "Running True one=Completed/0 web=running/0",
        ),
        (
            init(),
            run,
            &plain,
            "s0+ one/1@s0=x1~10",
            "Pending False one=CrashLoopBackOff/1 web=PodInitializing/0",
        ),
        (
            never(init()),
            run,
            &ended,
            "s0+ one/0@s0=x1",
            "Failed False one=Error/0 web=PodInitializing/0",
        ),
    ] {
        assert_eq!(
            told(spec, fate, memory, shown),
            expected,
            "shown: {shown:?}"
        );
    }
}

#[test]
fn a_condition_keeps_its_time_while_it_holds() {
    let pod = pod(web());
    let shown = observed(&pod, "s0+ web/0@s0=run");
    let memory = ready_memory();
    let at = |now: Timestamp, before: &Value| {
        let input = Input {
            pod: &pod,
            fate: Fate::Run,
            observed: &shown,
            memory: &memory,
            now,
        };
        crate::status::pod_status(&input, "192.0.2.1", before)
    };
    let first = at(ago(50), &Value::Null);
    let second = at(now(), &first);
    assert_eq!(first, second, "nothing has changed, so nothing differs");
    let gone = observed(&pod, "s0+ web/0@s0=x1");
    let input = Input {
        pod: &pod,
        fate: Fate::Run,
        observed: &gone,
        memory: &memory,
        now: now(),
    };
    let third = crate::status::pod_status(&input, "192.0.2.1", &second);
    let time = |status: &Value, kind: &str| {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|held| held["type"] == kind).unwrap()["lastTransitionTime"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(time(&third, "Ready"), crate::rfc3339(now()));
    assert_eq!(time(&third, "Initialized"), crate::rfc3339(ago(50)));
}
