"""The events whose prompts a template's hash covers."""

import pyarrow as pa

from lhcq.records.events import LISTED_CONSTITUENTS


def probe_records() -> pa.Table:
    """Events with 0, 1, 2 and 3 jets, the heavier one first or second, and values that round both ways.

    With every column that a template may read: a template's hash must not depend on who made the records.
    """
    momenta = [
        (
            1286.7276854490954,
            106.91212895959227,
            36,
            -1195.9301781079894,
            -474.78326170135693,
            240.06963161424423,
        ),
        (
            1283.2207326902046,
            463.16421456404189,
            103,
            1185.0550829874608,
            492.23967647028195,
            83.45395978844432,
        ),
        (24.499999999999996, 0.5, 1, -24.4, 2.2, -0.0),
    ]
    jets = [
        {
            "pt": pt,
            "m": m,
            "m_sd": 0.9 * m,
            "tau1": 0.3 * m,
            "tau2": 0.07 * m + (0.05 * n if n > 1 else 0.0),
            "tau3": 0.04 * m,
            "tau4": 0.013 * m,
            "c2": 0.0 if n == 1 else 0.0137 * n**0.5,
            "d2": 0.0 if n == 1 else 250.0 / m,
            "z_g": 0.0 if n == 1 else 7.0 / n,
            "z1": 0.75 + 0.001 * n,
            "z2": 0.0 if n == 1 else 0.25 - 0.001 * n,
            "width": 0.0004 * m,
            "pt_lead": pt / n**0.5,
            "n_constituents": n,
            "px": px,
            "py": py,
            "pz": pz,
            "e": (px**2 + py**2 + m**2) ** 0.5,
        }
        for pt, m, n, px, py, pz in momenta
    ]
    lists = [[], jets[:1], jets[:2], jets, jets[1::-1]]
    three = [
        {"pt": 640.25, "delta_eta": 0.015625, "delta_phi": -0.25},
        {"pt": 96.5, "delta_eta": -0.40625, "delta_phi": 0.09375},
        {"pt": 1.0, "delta_eta": 0.96875, "delta_phi": -1.125},
    ]
    listed = [[], [three], [three, three[:2]], [three[1:], three], [[], three[:1]]]
    return pa.table(
        {
            "jets": lists,
            LISTED_CONSTITUENTS.name: pa.array(listed, LISTED_CONSTITUENTS.type),
            "n_particles": [0, 47, 109, 482, 174],
            "n_jets": [0, 1, 2, 3, 12],
            "mjj": [None, None, 2580.489567709059, 9994.9, 995.0],
            "delta_r": [None, None, 3.1281437446318963, 3.05, 0.0],
            "delta_eta": [None, None, 0.15, 1.235, 0.0],
            "h_t": [0.0, 1286.7276854490954, 2569.9484181392999, 2594.448418139300, 2745.0],
        }
    )
