"""How large something is, in words."""


def said_bytes(size: int) -> str:
    """`12.3 MB`, in powers of 1000 as `df -H` and manufacturers of disks count."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
