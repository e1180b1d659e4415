"""The reference part of docs/clients.md, made from the comments of the .proto files.

Without arguments it writes the page anew; with --check it fails when the page is not
what it would write."""

import pathlib
import re
import sys
import tempfile

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "clients.md"
BEGIN = "<!-- Made by `make docs` from proto/keywright/v1; do not edit below. -->\n"
Field = descriptor_pb2.FieldDescriptorProto
# Field numbers of descriptor.proto: the path of a comment is made of them.
MESSAGES, ENUMS, SERVICES, MEMBERS = 4, 5, 6, 2


def files():
    """The compiled .proto files, with their comments."""
    names = sorted(str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set"
        code = protoc.main(["protoc", f"-I{ROOT / 'proto'}", "--include_source_info",
                            f"--descriptor_set_out={out}", *names])
        assert code == 0, "protoc failed"
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file


def comments(file):
    return {tuple(at.path): at.leading_comments for at in file.source_code_info.location}


def paragraphs(text):
    """A comment as text: its lines joined, its paragraphs kept."""
    lines = "\n".join(line.removeprefix(" ").rstrip() for line in text.strip("\n").split("\n"))
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", lines) if part.strip()]


def cell(text):
    return "<br>".join(paragraphs(text)).replace("|", "\\|")


def link(name):
    name = name.rsplit(".", 1)[-1]
    return f"[{name}](#{name.lower()})"


def type_of(field, message):
    if field.type_name:
        for nested in message.nested_type:
            if nested.options.map_entry and field.type_name.endswith("." + nested.name):
                return "map of {} to {}".format(*(type_of(f, nested) for f in nested.field))
        base = link(field.type_name)
    else:
        base = Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == Field.LABEL_REPEATED:
        return f"repeated {base}"
    return f"optional {base}" if field.proto3_optional else base


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row).rstrip() + " |" for row in rows] + [""]


def describe(file):
    notes = comments(file)
    note = lambda *path: notes.get(path, "")
    lines = []

    def head(name, *path):
        nonlocal lines
        lines += [f"#### {name}", ""]
        for part in paragraphs(note(*path)):
            lines += [part, ""]

    for n, service in enumerate(file.service):
        head(service.name, SERVICES, n)
        lines += table(["RPC", "request", "response", ""], [
            [f"`{rpc.name}`", link(rpc.input_type), link(rpc.output_type),
             cell(note(SERVICES, n, MEMBERS, m))] for m, rpc in enumerate(service.method)])
    for n, message in enumerate(file.message_type):
        head(message.name, MESSAGES, n)
        if message.field:
            lines += table(["field", "type", "number", ""], [
                [f"`{field.name}`", type_of(field, message), str(field.number),
                 cell(note(MESSAGES, n, MEMBERS, m))] for m, field in enumerate(message.field)])
    for n, enum in enumerate(file.enum_type):
        head(enum.name, ENUMS, n)
        lines += table(["value", "number", ""], [
            [f"`{value.name}`", str(value.number), cell(note(ENUMS, n, MEMBERS, m))]
            for m, value in enumerate(enum.value)])
    return lines


def reference():
    lines = []
    # What has a service comes first: that is where a reader begins.
    for file in sorted(files(), key=lambda f: (not f.service, f.name)):
        lines += [f"### {file.name}", ""]
        lines += describe(file)
    return "\n".join(lines).rstrip() + "\n"


def main():
    page = PAGE.read_text()
    by_hand, found, _ = page.partition(BEGIN)
    assert found, f"{PAGE.name} has lost the line {BEGIN!r}"
    due = by_hand + BEGIN + "\n" + reference()
    if sys.argv[1:] == ["--check"]:
        if page != due:
            sys.exit("docs/clients.md is not what the .proto files say; run: make docs")
        print("docs/clients.md: the reference says what the .proto files say ... ok")
    else:
        PAGE.write_text(due)


if __name__ == "__main__":
    main()
