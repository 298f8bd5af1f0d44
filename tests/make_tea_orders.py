"""The raw files of the demo, ``datasets/tea_orders*.csv.gz``: ``python tests/make_tea_orders.py``.

Orders of a made-up tea shop as a till exports them: money with a currency, days first, "-" and empty cells, towns that
determine postcodes, teas that determine prices and sizes. Of the new orders three have a wrong cell: see ``WRONG``.
"""

from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parents[1] / "datasets"
N_ORDERS, N_NEW = 1500, 300
TOWNS = {  # share of the orders, postcode, country
    "Edinburgh": (0.3, "EH1 1YZ", "UK"),
    "Leeds": (0.2, "LS1 4AP", "UK"),
    "Bristol": (0.15, "BS1 5TR", "UK"),
    "Cardiff": (0.1, "CF10 1EP", "UK"),
    "Dublin": (0.15, "D02 X285", "Ireland"),
    "Cork": (0.1, "T12 W8KP", "Ireland"),
}
TEAS = {  # share, pounds for a pack, grams of a pack
    "Assam": (0.25, 4.90, 100),
    "Darjeeling": (0.2, 7.50, 100),
    "Earl Grey": (0.25, 4.50, 125),
    "Sencha": (0.15, 9.20, 80),
    "Rooibos": (0.15, 3.90, 200),
}
WRONG = [  # row of the new orders, column, what stands there
    (60, "postcode", "LS1 4AP"),  # of Leeds, in an order to Cardiff
    (140, "unit price", "£49.00"),  # a point too far to the right, of Assam
    (230, "packs", "120"),
]


def orders(n, random):
    """Orders in the notation of the file."""
    towns = random.choice(list(TOWNS), n, p=[t[0] for t in TOWNS.values()])
    teas = random.choice(list(TEAS), n, p=[t[0] for t in TEAS.values()])
    abroad = np.array([TOWNS[t][2] == "Ireland" for t in towns])
    by_post = random.random(n) < np.where(abroad, 0.95, 0.6)
    packs = random.integers(1, np.where(by_post, 7, 3))
    price = np.array([TEAS[t][1] for t in teas]) * np.where(random.random(n) < 0.1, 0.9, 1.0)
    days = pd.Timestamp("2026-01-02") + pd.to_timedelta(random.integers(0, 240, n), "D")
    later = days + pd.to_timedelta(random.integers(1, 4, n) + 3 * abroad, "D")
    paid = np.where(by_post, random.choice(["card", "transfer"], n), "")
    paid = np.where(by_post, paid, random.choice(["card", "cash"], n))
    return pd.DataFrame(
        {
            "ordered": days.strftime("%d/%m/%Y"),
            "town": towns,
            "postcode": [TOWNS[t][1] for t in towns],
            "country": [TOWNS[t][2] for t in towns],
            "tea": teas,
            "grams": [TEAS[t][2] for t in teas],
            "unit price": [f"£{x:.2f}" for x in price],
            "packs": packs.astype(str),
            "how": np.where(by_post, "post", "shop"),
            "paid by": np.where(random.random(n) < 0.03, "-", paid),
            "sent": np.where(by_post, later.strftime("%d/%m/%Y"), ""),
        }
    )


def main():
    random = np.random.default_rng(0)
    before, new = orders(N_ORDERS, random), orders(N_NEW, random)
    new.loc[60, ["town", "country"]] = ["Cardiff", "UK"]
    new.loc[140, ["tea", "grams"]] = ["Assam", 100]
    for row, column, value in WRONG:
        new.loc[row, column] = value
    for name, table in (("tea_orders", before), ("tea_orders_new", new)):
        file = FOLDER / f"{name}.csv.gz"
        table.to_csv(file, index=False, compression={"method": "gzip", "mtime": 0})


if __name__ == "__main__":
    main()
