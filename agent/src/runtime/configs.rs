//! CRI's configuration of a sandbox and of a container from a pod's spec. Pure.

use std::collections::{BTreeMap, HashMap};

use k8s_cri::v1 as cri;

use super::*;
use crate::plan::spec_hash;
use crate::pod::{Container, Pod, Resources, SeccompProfile};
use crate::quantity;
use crate::volumes;

/// What of the node goes into a pod's configuration.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// `/reckon-1a2b3c4d`.
    pub cgroup_parent: String,
    pub memory_bytes: i64,
    /// The host's /etc/resolv.conf, as text.
    pub resolv_conf: String,
}

/// `log_directory` is the pod's own.
pub fn sandbox(
    pod: &Pod,
    attempt: u32,
    log_directory: &str,
    node: &NodeFacts,
) -> cri::PodSandboxConfig {
    let spec = &pod.spec;
    let privileged = spec
        .containers
        .iter()
        .chain(&spec.init_containers)
        .any(|one| one.security_context.privileged);
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            namespace: pod.metadata.namespace.clone(),
            attempt,
        }),
        hostname: if spec.host_network {
            String::new()
        } else {
            volumes::hostname(pod)
        },
        log_directory: log_directory.to_owned(),
        dns_config: Some(dns(pod, &node.resolv_conf)),
        port_mappings: if spec.host_network {
            Vec::new()
        } else {
            port_mappings(pod)
        },
        labels: labels(pod),
        annotations: pod.metadata.annotations.clone().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: format!("{}/pod{}", node.cgroup_parent, pod.metadata.uid),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(pod)),
                privileged,
                supplemental_groups: groups(pod),
                ..Default::default()
            }),
            sysctls: spec
                .security_context
                .sysctls
                .iter()
                .map(|one| (one.name.clone(), one.value.clone()))
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What only the caller knows about one attempt.
pub struct Attempt<'a> {
    pub number: u32,
    pub backoff_s: u32,
    pub image_id: &'a str,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<cri::Mount>,
}

pub fn container(
    pod: &Pod,
    spec: &Container,
    attempt: Attempt<'_>,
    node: &NodeFacts,
) -> cri::ContainerConfig {
    let lookup = |name: &str| {
        attempt
            .env
            .iter()
            .find(|(held, _)| held == name)
            .map(|(_, value)| value.clone())
    };
    let expand = |words: &[String]| {
        words
            .iter()
            .map(|word| crate::env::expand(word, &lookup))
            .collect()
    };
    let mut labels = labels(pod);
    labels.insert(LABEL_CONTAINER_NAME.to_owned(), spec.name.clone());
    let annotations = HashMap::from([
        (ANNOTATION_HASH.to_owned(), spec_hash(spec)),
        (
            ANNOTATION_RESTART_COUNT.to_owned(),
            attempt.number.to_string(),
        ),
        (ANNOTATION_BACKOFF.to_owned(), attempt.backoff_s.to_string()),
    ]);
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: spec.name.clone(),
            attempt: attempt.number,
        }),
        image: Some(cri::ImageSpec {
            image: attempt.image_id.to_owned(),
            ..Default::default()
        }),
        command: expand(&spec.command),
        args: expand(&spec.args),
        working_dir: spec.working_dir.clone(),
        envs: attempt
            .env
            .iter()
            .map(|(key, value)| cri::KeyValue {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        mounts: attempt.mounts,
        labels,
        annotations,
        log_path: format!("{}/{}.log", spec.name, attempt.number),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(pod, &spec.resources, node)),
            security_context: Some(security(pod, spec)),
        }),
        ..Default::default()
    }
}

fn labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().into_iter().collect();
    labels.insert(LABEL_POD_NAME.to_owned(), pod.metadata.name.clone());
    labels.insert(
        LABEL_POD_NAMESPACE.to_owned(),
        pod.metadata.namespace.clone(),
    );
    labels.insert(LABEL_POD_UID.to_owned(), pod.metadata.uid.clone());
    labels
}

fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let mode = |host: bool| {
        if host {
            cri::NamespaceMode::Node
        } else {
            cri::NamespaceMode::Pod
        }
    };
    let pid = match (pod.spec.host_pid, pod.spec.share_process_namespace) {
        (true, _) => cri::NamespaceMode::Node,
        (false, true) => cri::NamespaceMode::Pod,
        (false, false) => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: mode(pod.spec.host_network).into(),
        pid: pid.into(),
        ipc: mode(pod.spec.host_ipc).into(),
        ..Default::default()
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let context = &pod.spec.security_context;
    context
        .supplemental_groups
        .iter()
        .chain(&context.fs_group)
        .copied()
        .collect()
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    let ports = pod
        .spec
        .containers
        .iter()
        .chain(&pod.spec.init_containers)
        .flat_map(|container| &container.ports);
    ports
        .filter(|port| port.host_port > 0)
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_str() {
                "UDP" => cri::Protocol::Udp,
                "SCTP" => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port,
            host_ip: port.host_ip.clone(),
        })
        .collect()
}

/// ClusterFirst is the host's resolver for now: there is no cluster DNS yet.
fn dns(pod: &Pod, resolv_conf: &str) -> cri::DnsConfig {
    let mut config = cri::DnsConfig::default();
    if pod.spec.dns_policy != "None" {
        for line in resolv_conf.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
                Some("search") => config.searches = words.map(str::to_owned).collect(),
                Some("options") => config.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
    }
    let own = &pod.spec.dns_config;
    config.servers.extend(own.nameservers.iter().cloned());
    config.searches.extend(own.searches.iter().cloned());
    config
        .options
        .extend(own.options.iter().map(|option| match &option.value {
            Some(value) => format!("{}:{value}", option.name),
            None => option.name.clone(),
        }));
    config
}

/// Kubernetes: a request is a share, a limit a quota of each 100 ms.
fn resources(pod: &Pod, asked: &Resources, node: &NodeFacts) -> cri::LinuxContainerResources {
    let cpu =
        |list: &BTreeMap<String, serde_json::Value>| list.get("cpu").and_then(quantity::milli);
    let memory =
        |list: &BTreeMap<String, serde_json::Value>| list.get("memory").and_then(quantity::whole);
    let cpu_request = cpu(&asked.requests).or(cpu(&asked.limits)).unwrap_or(0);
    let memory_request = memory(&asked.requests)
        .or(memory(&asked.limits))
        .unwrap_or(0);
    let quota = cpu(&asked.limits)
        .filter(|milli| *milli > 0)
        .map_or(0, |milli| (milli * 100).max(1_000));
    cri::LinuxContainerResources {
        cpu_period: if quota > 0 { 100_000 } else { 0 },
        cpu_quota: quota,
        cpu_shares: (cpu_request * 1024 / 1000).clamp(2, 262_144),
        memory_limit_in_bytes: memory(&asked.limits).unwrap_or(0),
        oom_score_adj: oom_score_adj(pod, memory_request, node.memory_bytes),
        ..Default::default()
    }
}

/// Kubernetes: Node out of memory behavior. Guaranteed −997, BestEffort 1000, else by its request's part of the memory.
fn oom_score_adj(pod: &Pod, memory_request: i64, memory_bytes: i64) -> i64 {
    match pod.status["qosClass"].as_str() {
        Some("Guaranteed") => -997,
        Some("BestEffort") => 1000,
        _ if memory_bytes <= 0 => 999,
        _ => (1000 - 1000 * i128::from(memory_request) / i128::from(memory_bytes)).clamp(3, 999)
            as i64,
    }
}

fn security(pod: &Pod, spec: &Container) -> cri::LinuxContainerSecurityContext {
    let (own, shared) = (&spec.security_context, &pod.spec.security_context);
    let value = |value: i64| cri::Int64Value { value };
    let seccomp = own
        .seccomp_profile
        .as_ref()
        .or(shared.seccomp_profile.as_ref());
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: own.capabilities.add.clone(),
            drop_capabilities: own.capabilities.drop.clone(),
            ..Default::default()
        }),
        privileged: own.privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: own.run_as_user.or(shared.run_as_user).map(value),
        run_as_group: own.run_as_group.or(shared.run_as_group).map(value),
        readonly_rootfs: own.read_only_root_filesystem,
        supplemental_groups: groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !own.privileged,
        seccomp: seccomp.map(profile),
        ..Default::default()
    }
}

fn profile(profile: &SeccompProfile) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let kind = match profile.kind.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: profile.localhost_profile.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> NodeFacts {
        NodeFacts {
            cgroup_parent: "/reckon-x".into(),
            memory_bytes: 1000 << 20,
            resolv_conf: "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n".into(),
        }
    }

    fn check(
        requests: serde_json::Value,
        limits: serde_json::Value,
        qos: &str,
        expected: (i64, i64, i64, i64),
    ) {
        let pod = Pod::parse(&json!({
            "metadata": {"name": "p", "uid": "u"}, "status": {"qosClass": qos},
            "spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]},
        }))
        .unwrap();
        let found = resources(&pod, &pod.spec.containers[0].resources, &node());
        assert_eq!(
            (
                found.cpu_shares,
                found.cpu_quota,
                found.memory_limit_in_bytes,
                found.oom_score_adj
            ),
            expected,
            "{pod:?}"
        );
    }

    #[test]
    fn resources_become_cgroup_numbers() {
        check(json!({}), json!({}), "BestEffort", (2, 0, 0, 1000));
        check(
            json!({"cpu": "500m", "memory": "100Mi"}),
            json!({}),
            "Burstable",
            (512, 0, 0, 900),
        );
        check(
            json!({}),
            json!({"cpu": "2", "memory": "64Mi"}),
            "Guaranteed",
            (2048, 200_000, 64 << 20, -997),
        );
        check(
            json!({"cpu": "1m"}),
            json!({"cpu": "1m"}),
            "Burstable",
            (2, 1_000, 0, 999),
        );
    }

    #[test]
    fn a_sandbox() {
        let pod = Pod::parse(&json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"app": "web"}},
            "spec": {
                "shareProcessNamespace": true, "securityContext": {"fsGroup": 7},
                "dnsConfig": {"nameservers": ["192.0.2.54"], "options": [{"name": "timeout", "value": "1"}]},
                "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}],
            },
        }))
        .unwrap();
        let config = sandbox(&pod, 2, "/logs/p", &node());
        let dns = config.dns_config.unwrap();
        assert_eq!(dns.servers, ["192.0.2.53", "192.0.2.54"]);
        assert_eq!(dns.options, ["ndots:2", "timeout:1"]);
        assert_eq!(config.port_mappings.len(), 1);
        assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
        let linux = config.linux.unwrap();
        assert_eq!(linux.cgroup_parent, "/reckon-x/podu");
        let context = linux.security_context.unwrap();
        assert_eq!(context.supplemental_groups, [7]);
        assert_eq!(
            context.namespace_options.unwrap().pid(),
            cri::NamespaceMode::Pod
        );
    }

    #[test]
    fn a_container() {
        let pod = Pod::parse(&json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"securityContext": {"runAsUser": 5}, "containers": [{
                "name": "c", "command": ["echo", "$(A)"], "args": ["$(B)"],
                "securityContext": {"runAsUser": 6, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false},
            }]},
        }))
        .unwrap();
        let attempt = Attempt {
            number: 3,
            backoff_s: 20,
            image_id: "sha256:1",
            env: vec![("A".into(), "1".into())],
            mounts: vec![],
        };
        let config = container(&pod, &pod.spec.containers[0], attempt, &node());
        assert_eq!(
            (config.command, config.args),
            (vec!["echo".to_owned(), "1".into()], vec!["$(B)".to_owned()])
        );
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.annotations["reckon.dev/backoff-seconds"], "20");
        let context = config.linux.unwrap().security_context.unwrap();
        assert_eq!(context.run_as_user.unwrap().value, 6);
        assert!(context.no_new_privs);
    }
}
