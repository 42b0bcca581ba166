"""`irons doctor`: what this machine lacks for sandboxes of its own, check by check, with the line that fixes it.

A check is a function from facts to a `DoctorCheck`: no check looks at the machine itself, so that each machine there is
can be put to the test. Failures elsewhere name the check that explains them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from irons_local.doctor import packages
from irons_local.doctor.facts import Facts, gather
from irons_local.engines.vm import limits, qemu
from irons_local.linux.cgroup import UNDELEGATED
from irons_local.paths import Paths

_KERNEL = (5, 11)
_ROOM = 1 << 30
_CA_FIX = "correct ca under [local] in the configuration"
# An overlay's upper layer, with the attributes and owners it needs, cannot lie on these.
_UNFIT = (
    "overlay",
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "vfat",
    "exfat",
    "ntfs3",
    "fuseblk",
    "9p",
    "virtiofs",
    "squashfs",
)


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """What one check found.

    Attributes:
        name: a word, the same on every machine; other messages name it.
        ok: nothing is in the way of sandboxes.
        what: one sentence about what there is, or is not.
        fix: the line that repairs it, or an empty string; also with what is well but could be better.
    """

    name: str
    ok: bool
    what: str
    fix: str = ""


def examine(paths: Paths) -> tuple[DoctorCheck, ...]:
    """Look at this machine and judge it; see `judge`."""
    return judge(gather(paths))


def judge(facts: Facts) -> tuple[DoctorCheck, ...]:
    """Every check, in the order in which it makes sense to repair what they find."""
    if facts.system != "Linux":
        return (
            DoctorCheck(
                "kernel", False, f"sandboxes of your own need Linux, not {facts.system}", "use a server's URL"
            ),
        )
    return tuple(check(facts) for check in _CHECKS)


def _kernel(facts: Facts) -> DoctorCheck:
    found = re.match(r"(\d+)\.(\d+)", facts.release)
    version = tuple(map(int, found.groups())) if found else ()
    if version < _KERNEL:
        wanted = ".".join(map(str, _KERNEL))
        return DoctorCheck(
            "kernel",
            False,
            f"Linux {facts.release} is too old: {wanted} or later is needed",
            "upgrade the system",
        )
    if facts.overlay:
        return DoctorCheck(
            "kernel",
            False,
            f"overlayfs cannot be used in a user namespace: {facts.overlay}",
            _sudo(facts, "modprobe overlay"),
        )
    return DoctorCheck("kernel", True, f"Linux {facts.release}")


def _user_namespaces(facts: Facts) -> DoctorCheck:
    name = "user-namespaces"
    most = facts.sysctls.get("user/max_user_namespaces", "")
    if most == "0":
        return DoctorCheck(
            name, False, "user namespaces are switched off", _set(facts, "user.max_user_namespaces=10000")
        )
    if facts.uid != 0 and facts.sysctls.get("kernel/unprivileged_userns_clone") == "0":
        setting = "kernel.unprivileged_userns_clone=1"
        return DoctorCheck(
            name, False, "user namespaces are for root only on this machine", _set(facts, setting)
        )
    if facts.entering and not _is_restricted(facts) and not _lacks_map_program(facts):
        return DoctorCheck(
            name,
            False,
            f"namespaces cannot be made{_inside(facts)}: {facts.entering}",
            _way_out(facts),
        )
    if facts.calls:
        what = f"a system call that starts a sandbox is refused{_inside(facts)}: {facts.calls}"
        return DoctorCheck(name, False, what, _way_out(facts))
    if facts.proc:
        return DoctorCheck(
            name,
            False,
            f"a new /proc cannot be mounted, as in a container that hides parts of it: {facts.proc}",
            _way_out(facts),
        )
    return DoctorCheck(
        name, True, "user namespaces can be made" if not facts.entering else "see the other checks"
    )


def _container(facts: Facts) -> DoctorCheck:
    around = facts.around
    if around.missing:
        lacking = f"root lacks {', '.join(around.missing)}{_inside(facts)}"
        return DoctorCheck("container", False, lacking, _way_out(facts))
    if not around.gaining:
        # A sandbox inherits it; without root, newuidmap cannot do its work.
        what = "no program can gain rights (no-new-privileges), so sudo fails in sandboxes"
        return DoctorCheck(
            "container", facts.uid == 0, what, "start irons, or its container, without no-new-privileges"
        )
    return DoctorCheck(
        "container",
        True,
        f"in a container ({around.container})" if around.container else "not in a container",
    )


def _way_out(facts: Facts) -> str:
    """What to do about a container, all at once: its own file system is not a place for state either."""
    return facts.around.way_out(str(facts.state.parent) if facts.filesystem == "overlay" else "")


def _inside(facts: Facts) -> str:
    if facts.around.container:
        return f" in this container ({facts.around.container})"
    return ", as in an ordinary container" if facts.around.confine else ""


def _apparmor(facts: Facts) -> DoctorCheck:
    if _is_restricted(facts) and facts.entering:
        return DoctorCheck(
            "apparmor",
            False,
            "AppArmor keeps ordinary users from making namespaces",
            _set(facts, "kernel.apparmor_restrict_unprivileged_userns=0"),
        )
    return DoctorCheck("apparmor", True, "AppArmor is not in the way")


def _subordinate_ids(facts: Facts) -> DoctorCheck:
    if not facts.ids:
        return DoctorCheck(
            "subordinate-ids",
            True,
            "root needs none" if facts.uid == 0 else f"{facts.user} has enough of them",
        )
    if facts.uid == 0:
        fix = "start the container as the machine's root, not rootless; as an ordinary user of the machine irons works too"
        return DoctorCheck("subordinate-ids", False, facts.ids, fix)
    ids = f"{facts.free_ids}-{facts.free_ids + 65535}"
    line = f"usermod --add-subuids {ids} --add-subgids {ids} {facts.user}"
    return DoctorCheck("subordinate-ids", False, facts.ids, _sudo(facts, line))


def _newuidmap(facts: Facts) -> DoctorCheck:
    if facts.uid == 0:
        return DoctorCheck("newuidmap", True, "root needs none")
    return _program(facts, "newuidmap", "newuidmap", "newgidmap", purpose="gives sandboxes their ids")


def _nftables(facts: Facts) -> DoctorCheck:
    check = _program(facts, "nftables", "nft", purpose="leads a sandbox's connections to the gateway")
    if check.ok and facts.rules:
        modules = "modprobe -a nf_tables nft_tproxy nft_chain_nat nft_log nft_reject_inet"
        return DoctorCheck(
            "nftables", False, f"the kernel refuses the rules: {facts.rules}", _sudo(facts, modules)
        )
    return check


def _crun(facts: Facts) -> DoctorCheck:
    return _program(facts, "crun", "crun", purpose="runs the sandboxes")


def _mmdebstrap(facts: Facts) -> DoctorCheck:
    check = _program(facts, "mmdebstrap", "mmdebstrap", purpose="builds images")
    if check.ok or not facts.images:
        return check
    return DoctorCheck(
        "mmdebstrap", True, "not installed; only needed to build images, and there is one", check.fix
    )


def _skopeo(facts: Facts) -> DoctorCheck:
    check = _program(facts, "skopeo", "skopeo", purpose="pulls images")
    if check.ok:
        return check
    return DoctorCheck("skopeo", True, "not installed; only needed to pull images from registries", check.fix)


def _ssh(facts: Facts) -> DoctorCheck:
    return _program(facts, "ssh", "ssh", "ssh-keygen", purpose="leads into sandboxes")


def _state(facts: Facts) -> DoctorCheck:
    if facts.state_problem:
        return DoctorCheck(
            "state", False, facts.state_problem, "set XDG_STATE_HOME to a directory of your own"
        )
    if facts.filesystem in _UNFIT:
        return DoctorCheck(
            "state",
            False,
            f"{facts.state} is on {facts.filesystem}, on which sandboxes cannot keep their files",
            _way_out(facts)
            if facts.around.container and facts.filesystem == "overlay"
            else "set XDG_STATE_HOME to a directory on a local disk",
        )
    return DoctorCheck(
        "state", True, f"{facts.state}" + (f" ({facts.filesystem})" if facts.filesystem else "")
    )


def _disk(facts: Facts) -> DoctorCheck:
    room = f"{facts.free / 1e9:.1f} GB are free"
    if facts.free < _ROOM:
        return DoctorCheck(
            "disk", False, f"{room}; an image and a sandbox at work need 1 GB", f"make room at {facts.state}"
        )
    return DoctorCheck("disk", True, room)


def _limits(facts: Facts) -> DoctorCheck:
    if not facts.limits:
        return DoctorCheck("cgroups", True, "processors, memory and processes of a sandbox can be limited")
    # A container seldom has a systemd of its own, which is what would run the service.
    helps = facts.limits.startswith(UNDELEGATED) and not facts.around.container
    fix = "irons local service install" if helps else ""
    return DoctorCheck("cgroups", True, f"only the number of processes can be limited: {facts.limits}", fix)


def _disk_limits(facts: Facts) -> DoctorCheck:
    name = "disk-limits"
    if facts.uid != 0:
        return DoctorCheck(
            name, True, "--disk is refused: the namespace engine can limit the disk only for root"
        )
    check = _program(facts, name, "mkfs.ext4", purpose="makes the file system that --disk limits")
    if not check.ok:
        return DoctorCheck(name, True, "mkfs.ext4 is not installed; only --disk needs it", check.fix)
    if not facts.loop:
        fix = "" if facts.around.container else "modprobe loop"
        return DoctorCheck(name, True, "/dev/loop-control cannot be opened; only --disk needs it", fix)
    return DoctorCheck(name, True, "the disk of a sandbox can be limited")


def _names(facts: Facts) -> DoctorCheck:
    if not facts.unreadable:
        return DoctorCheck("names", True, "the gateway can read what it resolves names with")
    files = " ".join(facts.unreadable)
    return DoctorCheck(
        "names",
        False,
        f"the gateway, which runs as a user of its own, cannot read {files}, so no name is resolved",
        _sudo(facts, f"chmod a+r {files}"),
    )


def _authorities(facts: Facts) -> DoctorCheck:
    name, found = "company-ca", facts.authorities
    kept = (
        "; left out: " + ", ".join(f"{each.path} ({each.why})" for each in found.left_out)
        if found.left_out
        else ""
    )
    if not found.count:
        return DoctorCheck(
            name,
            not kept,
            f"no certificate authority is carried into sandboxes{kept}",
            _CA_FIX if kept else "",
        )
    what = f"{found.count} certificate{'s' if found.count != 1 else ''} of {', '.join(found.files)} are trusted in sandboxes"
    return DoctorCheck(name, True, what + kept)


def _internet(facts: Facts) -> DoctorCheck:
    name, way = "internet", facts.way_out
    setting = 'set upstream_proxy = "http://HOST:PORT" under [local] in the configuration'
    if way.trouble:
        fix = "correct [local] in the configuration"
        return DoctorCheck(name, False, f"the upstream proxy cannot be used: {way.trouble}", fix)
    if way.proxied:
        fix = f"chmod 600 {way.readable}" if way.readable else ""
        others = f"; others can read its password in {way.readable}" if way.readable else ""
        return DoctorCheck(name, True, f"the upstream proxy takes connections{others}", fix)
    if way.variable and not way.routed:
        what = f"there is no route to the internet, and the gateway does not use the proxy that {way.variable} names"
        return DoctorCheck(name, False, what, setting)
    if way.variable:
        what = f"the gateway dials directly; {way.variable} names a proxy, which it does not use"
        return DoctorCheck(name, True, what, f"where only that proxy leads out: {setting}")
    return DoctorCheck(
        name, True, "there is a route" if way.routed else "there is no route; sandboxes reach nothing outside"
    )


def _tun(facts: Facts) -> DoctorCheck:
    if facts.tun:
        return DoctorCheck("tun", True, "/dev/net/tun is there; irons does not need it")
    return DoctorCheck("tun", True, "/dev/net/tun is not open to you, and irons does not need it")


def _vm(facts: Facts) -> DoctorCheck:
    check = _program(facts, "vm", qemu.PROGRAM, purpose="runs virtual machines")
    if not check.ok:
        return DoctorCheck(
            "vm", True, f"{qemu.PROGRAM} is not installed; only --engine vm needs it", check.fix
        )
    if facts.kvm:
        return DoctorCheck("vm", True, limits.slow(facts.kvm))
    return DoctorCheck("vm", True, "QEMU runs virtual machines by KVM")


def _incus(facts: Facts) -> DoctorCheck:
    if facts.cluster_problem:
        return DoctorCheck("incus", False, facts.cluster_problem, _sudo(facts, "irons fleet leave"))
    if facts.cluster:
        joined = f"the cluster at {facts.cluster} is joined, by a certificate until {facts.cluster_until}"
        return DoctorCheck("incus", True, joined)
    if not facts.incus_answers:
        return DoctorCheck("incus", True, f"there is no Incus at {facts.incus}; only --engine incus needs it")
    if facts.uid != 0:
        return DoctorCheck("incus", True, "Incus is there, and --engine incus needs root")
    return DoctorCheck("incus", True, f"Incus is there, at {facts.incus}")


_CHECKS: tuple[Callable[[Facts], DoctorCheck], ...] = (
    _kernel,
    _user_namespaces,
    _container,
    _apparmor,
    _subordinate_ids,
    _newuidmap,
    _nftables,
    _crun,
    _mmdebstrap,
    _skopeo,
    _ssh,
    _state,
    _disk,
    _limits,
    _disk_limits,
    _names,
    _authorities,
    _internet,
    _tun,
    _vm,
    _incus,
)


def _is_restricted(facts: Facts) -> bool:
    return facts.uid != 0 and facts.sysctls.get("kernel/apparmor_restrict_unprivileged_userns") == "1"


def _lacks_map_program(facts: Facts) -> bool:
    return facts.uid != 0 and not (facts.programs.get("newuidmap") and facts.programs.get("newgidmap"))


def _program(facts: Facts, check: str, *programs: str, purpose: str) -> DoctorCheck:
    missing = [name for name in programs if not facts.programs.get(name)]
    if not missing:
        return DoctorCheck(check, True, facts.programs[programs[0]])
    line = packages.installing(programs[0], facts.manager)
    fix = _sudo(facts, line) if facts.manager else line
    return DoctorCheck(check, False, f"{missing[0]}, which {purpose}, is not installed", fix)


def _set(facts: Facts, setting: str) -> str:
    """The line that changes a kernel setting, now and for later."""
    return _sudo(facts, f"sh -c 'echo {setting} >/etc/sysctl.d/90-irons.conf && sysctl --system'")


def _sudo(facts: Facts, line: str) -> str:
    return line if facts.uid == 0 else f"sudo {line}"
