//! Services through their hooks, as the server runs them.

use super::*;
use crate::kind::{Claim, Want};
use crate::resources::recorded::{context, decoded, messages};
use crate::resources::strategy;

/// Defaults, checks and grants addresses from 10.96.0.9 and ports from 30001 on, as a server would.
fn create(spec: Value) -> Value {
    let mut object = decoded(
        &KIND,
        json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}),
    );
    strategy::create(&KIND, &mut object, &context()).unwrap();
    grant_all(&mut object);
    object
}

fn update(old: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut new = old.clone();
    change(&mut new["spec"]);
    let mut new = decoded(&KIND, new);
    strategy::update(&KIND, old, &mut new, &context()).unwrap();
    grant_all(&mut new);
    new
}

fn grant_all(object: &mut Value) {
    let (mut last, mut port) = (8, 30000);
    let grants: Vec<Claim> = (KIND.hooks.wants)(object, &[false])
        .into_iter()
        .map(|want| match want {
            Want::ServiceAddress { fixed, .. } => {
                last += 1;
                Claim::ServiceAddress(fixed.unwrap_or([10, 96, 0, last].into()))
            }
            Want::NodePort { fixed, .. } => {
                port += 1;
                Claim::NodePort(fixed.unwrap_or(port))
            }
        })
        .collect();
    (KIND.hooks.grant)(object, &grants);
}

#[test]
fn specs_are_filled_in() {
    let usual = json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "type": "ClusterIP", "sessionAffinity": "None",
                       "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster"});
    let port = json!({"port": 80, "protocol": "TCP", "targetPort": 80});
    let with = |changes: Value| {
        let mut spec = usual.clone();
        spec["ports"] = json!([port]);
        for (key, value) in changes.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    let node_port = |number: u16| json!([{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": number}]);
    let rows = [
        (json!({"ports": [{"port": 80}]}), with(json!({}))),
        (
            json!({"ports": [{"port": 80}], "clusterIP": "None", "selector": {"a": "b"}}),
            with(json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}})),
        ),
        (
            json!({"ports": [{"port": 80}], "clusterIP": "None"}),
            with(
                json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
            ),
        ),
        (
            json!({"ports": [{"port": 80}], "type": "NodePort"}),
            with(
                json!({"type": "NodePort", "externalTrafficPolicy": "Cluster", "ports": node_port(30001)}),
            ),
        ),
        (
            json!({"ports": [{"port": 80}], "type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": false}),
            with(
                json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": false, "healthCheckNodePort": 30001}),
            ),
        ),
        (
            json!({"type": "ExternalName", "externalName": "db.example.com"}),
            json!({"type": "ExternalName", "externalName": "db.example.com", "sessionAffinity": "None"}),
        ),
        (
            json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP"}),
            with(
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}}),
            ),
        ),
        (
            json!({"ports": [{"port": 80}], "clusterIP": "10.96.3.3"}),
            with(json!({"clusterIP": "10.96.3.3", "clusterIPs": ["10.96.3.3"]})),
        ),
        (
            json!({"ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack"}),
            with(json!({"ipFamilyPolicy": "PreferDualStack"})),
        ),
    ];
    for (given, expected) in rows {
        let made = create(given.clone());
        assert_eq!(made["spec"], expected, "{given}");
        assert_eq!(made["status"], json!({"loadBalancer": {}}));
    }
}

#[test]
fn ports_of_one_number_share_a_node_port() {
    let made = create(json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53}, {"name": "c", "port": 80}]}));
    let ports: Vec<i64> = items(&made["spec"]["ports"])
        .iter()
        .map(|port| port["nodePort"].as_i64().unwrap())
        .collect();
    assert_eq!(ports, [30001, 30001, 30002]);
    let claims = (KIND.hooks.claims)(&made);
    assert_eq!(
        claims,
        [
            Claim::ServiceAddress([10, 96, 0, 9].into()),
            Claim::NodePort(30001),
            Claim::NodePort(30002)
        ]
    );
}

#[test]
fn a_change_of_type_takes_along_what_the_new_type_has() {
    let plain = create(json!({"ports": [{"port": 80}], "selector": {"a": "b"}}));
    let node_port = update(&plain, |spec| spec["type"] = json!("NodePort"));
    assert_eq!(node_port["spec"]["ports"][0]["nodePort"], 30001);
    let balanced = update(&node_port, |spec| spec["type"] = json!("LoadBalancer"));
    assert_eq!(
        (
            &balanced["spec"]["ports"],
            &balanced["spec"]["allocateLoadBalancerNodePorts"]
        ),
        (&node_port["spec"]["ports"], &json!(true))
    );
    let back = update(&balanced, |spec| spec["type"] = json!("ClusterIP"));
    assert_eq!(back["spec"], plain["spec"]);
    let elsewhere = update(&back, |spec| {
        spec["type"] = json!("ExternalName");
        spec["externalName"] = json!("x.example.com");
    });
    let expected = json!({"ports": plain["spec"]["ports"], "selector": {"a": "b"}, "type": "ExternalName",
                          "sessionAffinity": "None", "externalName": "x.example.com"});
    assert_eq!(elsewhere["spec"], expected);
    assert!((KIND.hooks.claims)(&elsewhere).is_empty());
    let again = update(&elsewhere, |spec| {
        spec["type"] = json!("ClusterIP");
        spec["externalName"] = Value::Null;
    });
    assert_eq!(again["spec"], plain["spec"]);
}

#[test]
fn a_replacement_need_not_name_what_was_allotted() {
    let old = create(json!({"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}}));
    let new = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]}});
    let mut new = decoded(&KIND, new);
    strategy::update(&KIND, &old, &mut new, &context()).unwrap();
    assert_eq!(new["spec"]["clusterIPs"], old["spec"]["clusterIPs"]);
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
}

#[test]
fn validation() {
    let rows: &[(&str, Value, &[&str])] = &[
        ("no ports", json!({"ports": []}), &["spec.ports "]),
        (
            "port 0",
            json!({"ports": [{"port": 0}]}),
            &[
                "spec.ports[0].port must be between",
                "spec.ports[0].targetPort must be between",
            ],
        ),
        (
            "unnamed",
            json!({"ports": [{"port": 80}, {"port": 81}]}),
            &["spec.ports[0].name ", "spec.ports[1].name "],
        ),
        (
            "twice",
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}),
            &["spec.ports[1] "],
        ),
        (
            "type",
            json!({"ports": [{"port": 80}], "type": "Magic"}),
            &["spec.type supported values: \"ClusterIP\", \"ExternalName\""],
        ),
        (
            "address",
            json!({"ports": [{"port": 80}], "clusterIP": "not-an-ip"}),
            &["spec.clusterIPs[0] must be a valid IP"],
        ),
        (
            "no name elsewhere",
            json!({"type": "ExternalName"}),
            &["spec.externalName "],
        ),
        (
            "node port for none",
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            &["spec.ports[0].nodePort may not be used when"],
        ),
        (
            "headless outside",
            json!({"ports": [{"port": 80}], "type": "NodePort", "clusterIP": "None"}),
            &["spec.clusterIPs[0] may not be set"],
        ),
        (
            "policy",
            json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"}),
            &["spec.externalTrafficPolicy may only be set for ext"],
        ),
        (
            "target",
            json!({"ports": [{"port": 80, "targetPort": "no_port"}]}),
            &["spec.ports[0].targetPort must contain only"],
        ),
    ];
    for (what, spec, expected) in rows {
        let mut object = decoded(
            &KIND,
            json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}),
        );
        (KIND.hooks.prepare_create)(&mut object, &context());
        messages(what, validation::validate(&object), expected);
    }
    let old = create(json!({"ports": [{"port": 80}]}));
    let mut new = old.clone();
    new["spec"]["clusterIP"] = json!("None");
    new["spec"]["clusterIPs"] = json!(["None"]);
    messages(
        "address changed",
        validation::validate_update(&old, &new),
        &["spec.clusterIPs[0] may not change once set"],
    );
    let balanced = json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}});
    let mut balanced = decoded(&KIND, balanced);
    messages("status", validation::validate_status(&old, &balanced), &[]);
    balanced["status"]["loadBalancer"]["ingress"][0]["ip"] = json!("nonsense");
    messages(
        "bad status",
        validation::validate_status(&old, &balanced),
        &["status.loadBalancer.ingress[0].ip must be a valid IP"],
    );
}

#[test]
fn rows_print_ports_and_addresses() {
    let node_port = create(
        json!({"type": "NodePort", "ports": [{"port": 80}], "selector": {"b": "2", "a": "1"}}),
    );
    assert_eq!(
        json!(cells(&node_port, 0)),
        json!([
            "s",
            "NodePort",
            "10.96.0.9",
            "<none>",
            "80:30001/TCP",
            "<unknown>",
            "a=1,b=2"
        ])
    );
    let mut balanced = create(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    assert_eq!(cells(&balanced, 0)[3], "<pending>");
    balanced["status"]["loadBalancer"]["ingress"] =
        json!([{"ip": "192.0.2.7"}, {"hostname": "a.example.com"}]);
    assert_eq!(cells(&balanced, 0)[3], "192.0.2.7,a.example.com");
    let elsewhere = create(json!({"type": "ExternalName", "externalName": "db.example.com"}));
    assert_eq!(
        json!(cells(&elsewhere, 0)[1..5]),
        json!(["ExternalName", "<none>", "db.example.com", "<none>"])
    );
}
