#!/usr/bin/env python3
"""Compiles Kubernetes' OpenAPI v3 documents into data/schemas.json: what the engine needs of each schema, without the prose.

    compile.py OPENAPI_V3_DIR                  writes data/schemas.json
    compile.py OPENAPI_V3_DIR --check          compares, and fails where they differ
    compile.py --go ROOT [ROOT ...]            writes data/go.json and data/protobuf.json, from checkouts of k8s.io/api, apimachinery, …

OPENAPI_V3_DIR holds one document a group version as kube-apiserver serves it at /openapi/v3/…, gzipped (`apis__apps__v1.json.gz`).
The documents do not say which fields are pointers in Kubernetes' Go types, nor what a named type is called. Both are seen by
clients: `replicas: 0` is kept but `minReadySeconds: 0` is not, and a decoding error names the type. data/go.json holds just these
facts, a row a field: `*` pointer, `!` written even when it is zero, then the type where it has a name of its own. data/protobuf.json
holds the fields' numbers in protobuf, which newer clients send; two numbers where Go inlines what is a message there.
"""

import gzip
import json
import pathlib
import re
import sys

DATA = pathlib.Path(__file__).resolve().parent / "data"
FIRST = {"kind": 0, "apiVersion": 1, "metadata": 2}
SCALARS = {"string", "bool", "int32", "int64", "int", "float64", "byte"}
# Types with a JSON form of their own: written even when zero, unless behind a pointer or `omitzero`.
VALUES = {"resource.Quantity", "v1.Time", "v1.MicroTime", "intstr.IntOrString", "v1.Duration"}


def main(arguments):
    if arguments[:1] == ["--go"]:
        known = json.loads((DATA / "schemas.json").read_text())
        facts, numbers = go_facts([pathlib.Path(root) for root in arguments[1:]])
        write(DATA / "go.json", {name: row for name, row in facts.items() if name in known})
        write(DATA / "protobuf.json", {name: row for name, row in numbers.items() if name in known and row})
        return 0
    facts, numbers = (json.loads((DATA / f"{name}.json").read_text()) for name in ("go", "protobuf"))
    schemas = compile_documents(pathlib.Path(arguments[0]), facts, numbers)
    if "--check" in arguments:
        same = schemas == json.loads((DATA / "schemas.json").read_text())
        print("schemas.json is what the documents say" if same else "schemas.json differs from the documents: run compile.py")
        return 0 if same else 1
    write(DATA / "schemas.json", schemas)
    return 0


def write(path, table):
    """One line an entry, so that a change shows in a diff."""
    rows = [f"{json.dumps(name)}:{json.dumps(row, separators=(',', ':'))}" for name, row in sorted(table.items())]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


# ---- the documents ----------------------------------------------------------------------------------------------------------


def compile_documents(folder, facts, numbers):
    schemas = {}
    for path in sorted(folder.glob("*.json.gz")):
        document = json.loads(gzip.decompress(path.read_bytes()))
        for name, schema in document.get("components", {}).get("schemas", {}).items():
            schemas.setdefault(name, compile_schema(name, schema, facts.get(name), numbers.get(name, {})))
    return schemas


def compile_schema(name, schema, facts, numbers):
    row = {}
    kinds = schema.get("x-kubernetes-group-version-kind", [])
    if len(kinds) == 1:  # what belongs to every group (DeleteOptions, WatchEvent) lists them all
        row["gvk"] = [kinds[0]["group"], kinds[0]["version"], kinds[0]["kind"]]
    for source, target in (("type", "type"), ("format", "format"), ("x-kubernetes-map-type", "map"), ("required", "required")):
        if source in schema:
            row[target] = schema[source]
    if "oneOf" in schema:
        row["one_of"] = [option["type"] for option in schema["oneOf"]]
    if "x-kubernetes-unions" in schema:
        row["unions"] = [
            {key: union[source] for source, key in (("discriminator", "discriminator"), ("fields-to-discriminateBy", "fields")) if source in union}
            for union in schema["x-kubernetes-unions"]
        ]
    if "properties" in schema:
        order = sorted(schema["properties"], key=lambda field: (FIRST.get(field, 3), field))
        row["fields"] = {field: compile_field(schema["properties"][field], None if facts is None else facts.get(field, "")) for field in order}
        for field in order:
            if field in numbers:
                row["fields"][field]["number"] = numbers[field]
    return row


def compile_field(schema, fact):
    row = compile_type(schema)
    for source, target in (
        ("x-kubernetes-list-type", "list"),
        ("x-kubernetes-list-map-keys", "keys"),
        ("x-kubernetes-map-type", "map"),
        ("x-kubernetes-patch-merge-key", "merge_key"),
        ("x-kubernetes-patch-strategy", "strategy"),
        ("enum", "enum"),
        ("default", "default"),
    ):
        if source in schema:
            row[target] = schema[source]
    marks = re.match(r"[*!]*", fact or "").group()
    if "*" in marks:
        row["pointer"] = True
    # A default that is the type's zero says only that the field is no pointer and, of a struct or where the Go type is not
    # known, that it is always written.
    zero = "default" in row and row["default"] in ("", 0, False, {}) and "*" not in marks
    if "!" in marks or (zero and (fact is None or row["default"] == {})):
        row["always"] = True
    if zero:
        del row["default"]
    if fact and fact[len(marks):]:
        row["go"] = fact[len(marks):]
    return row


def compile_type(schema):
    reference = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", []) if "$ref" in part), None)
    if reference:
        return {"ref": reference.rpartition("/")[2]}
    row = {}
    for source in ("type", "format"):
        if source in schema:
            row[source] = schema[source]
    if "items" in schema:
        row["items"] = compile_type(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        row["values"] = compile_type(schema["additionalProperties"])
    return row


# ---- Kubernetes' Go types ---------------------------------------------------------------------------------------------------


def go_facts(roots):
    packages = {}  # OpenAPI prefix -> (structs, named types)
    for root in roots:
        module = re.search(r"^module (\S+)", (root / "go.mod").read_text(), re.M).group(1)
        for path in sorted(root.rglob("*.go")):
            if path.name.endswith("_test.go") or "generated" in path.name or path.name == "doc.go":
                continue
            package = f"{module}/{path.parent.relative_to(root)}"
            structs, named = packages.setdefault(openapi_prefix(package), ({}, {}))
            read_go(path.read_text(), structs, named)
    facts, numbers = {}, {}
    for prefix, (structs, named) in packages.items():
        for struct in structs:
            rows, tags = {}, {}
            for field, (type_, options), number in flatten(prefix, struct, packages, []):
                fact = field_fact(prefix, type_, options, packages)
                if fact:
                    rows[field] = fact
                if number:
                    tags[field] = number
            facts[f"{prefix}.{struct}"] = dict(sorted(rows.items()))
            numbers[f"{prefix}.{struct}"] = dict(sorted(tags.items()))
    return facts, numbers


def openapi_prefix(package):
    """k8s.io/api/core/v1 -> io.k8s.api.core.v1"""
    host, _, rest = package.partition("/")
    return ".".join(reversed(host.split("."))) + "." + rest.replace("/", ".")


def read_go(text, structs, named):
    for match in re.finditer(r"^type (\w+) struct \{\n(.*?)^\}", text, re.M | re.S):
        fields = []
        for line in match.group(2).splitlines():
            found = re.match(r"\s+(?:(\w+(?:, \w+)*)\s+)?([\w.*\[\]]+(?:\{\})?)\s+`([^`]*)`", line)
            tag = found and re.search(r'json:"([^"]*)"', found.group(3))
            if tag:
                number = re.search(r'protobuf:"\w+,(\d+),', found.group(3))
                fields.append((found.group(2), tag.group(1), int(number.group(1)) if number else None))
            elif re.match(r"\s+[A-Z][\w.]*$", line):
                fields.append((line.strip(), ",inline", None))
        structs[match.group(1)] = fields
    for match in re.finditer(r"^type (\w+) (?!struct|interface|func)(=? ?[\w.\[\]*]+)", text, re.M):
        named[match.group(1)] = match.group(2)
    for block in re.finditer(r"^type \(\n(.*?)^\)", text, re.M | re.S):
        for match in re.finditer(r"^\t(\w+) ([\w.\[\]*]+)$", block.group(1), re.M):
            named[match.group(1)] = match.group(2)


def flatten(prefix, struct, packages, outer):
    structs = packages.get(prefix, ({}, {}))[0]
    for type_, tag, number in structs.get(struct, []):
        name, *options = tag.split(",")
        if name == "-":
            continue
        # What is inlined without a number (TypeMeta) is no part of the message.
        path = [*outer, number] if number and outer is not None else None
        if name:
            yield name, (type_, options), path
        else:
            package, _, local = type_.lstrip("*").rpartition(".")
            home = "io.k8s.apimachinery.pkg.apis.meta.v1" if package else prefix
            yield from flatten(home, local, packages, path)


def field_fact(prefix, type_, options, packages):
    bare = type_.lstrip("*")
    shown, scalar = go_type(prefix, bare, packages)
    marks = ""
    if type_.startswith("*") and (scalar or shown in VALUES or "omitempty" not in options):
        marks += "*"
    written = "omitempty" not in options and "omitzero" not in options
    if written or (shown in VALUES and not type_.startswith("*") and "omitzero" not in options):
        marks += "!"
    plain = not re.search(r"[A-Z]", shown) or re.fullmatch(r"(\[\]|map\[string\])*\w+\.\w+", shown) and not scalar and "=" not in shown
    return marks + ("" if plain else shown)


def go_type(prefix, type_, packages):
    """The type as Go prints it, and whether it is a scalar in the end."""
    for pattern in (r"\[\](.+)", r"map\[(\w[\w.]*)\](.+)"):
        found = re.fullmatch(pattern, type_)
        if found:
            parts = [go_type(prefix, part.lstrip("*"), packages)[0] for part in found.groups()]
            return ("[]" + parts[0] if len(parts) == 1 else f"map[{parts[0]}]{parts[1]}"), False
    if type_ in SCALARS or type_ == "interface{}":
        return type_.replace("byte", "uint8"), type_ in SCALARS
    package, _, local = type_.rpartition(".")
    home = {"": prefix, "metav1": "io.k8s.apimachinery.pkg.apis.meta.v1", "resource": "io.k8s.apimachinery.pkg.api.resource",
            "intstr": "io.k8s.apimachinery.pkg.util.intstr", "types": "io.k8s.apimachinery.pkg.types",
            "runtime": "io.k8s.apimachinery.pkg.runtime", "v1": "io.k8s.api.core.v1", "corev1": "io.k8s.api.core.v1",
            "apiv1": "io.k8s.api.core.v1", "api": "io.k8s.api.core.v1", "core": "io.k8s.api.core.v1"}.get(package, prefix)
    underlying = packages.get(home, ({}, {}))[1].get(local)
    shown = f"{home.rpartition('.')[2]}.{local}"
    if underlying is None:
        return shown, False
    if underlying.startswith("="):
        return go_type(home, underlying.lstrip("= "), packages)
    if underlying.startswith(("[", "map")):
        return shown, False
    return shown, go_type(home, underlying, packages)[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
