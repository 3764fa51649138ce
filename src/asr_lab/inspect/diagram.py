"""A network as nested boxes in one SVG file: data flow from top to bottom, skip connections on the left."""

from typing import NamedTuple

from markupsafe import Markup, escape

from asr_lab.inspect.dataflow import INPUT, OUTPUT, Block, Edge, Join
from asr_lab.inspect.numbers import amount, shape

CHAR, SMALL = 7.0, 5.9  # widths of characters, generously: a viewer may have another font
HEAD, LEAF, PILL, GAP = 44.0, 40.0, 20.0, 34.0  # heights
LANE, PAD = 14.0, 16.0
# Okabe & Ito's colours, as in the report, by what a class is called.
FAMILIES = {
    "linear": ("Linear", "#0072b2"),
    "convolution": ("Conv", "#d55e00"),
    "attention": ("Attention", "#cc79a7"),
    "recurrent": ("LSTM GRU RNN", "#e69f00"),
    "normalisation": ("Norm", "#009e73"),
}
OTHER = "#777777"
STYLE = """text{font:12px system-ui,sans-serif;fill:#222}.name{font-weight:600}.small{font-size:10.5px;fill:#555}
.box{stroke-width:1.2}.edge{fill:none;stroke:#444;stroke-width:1.2}.pill{fill:#fff;stroke:#444;stroke-width:1.1}"""


class Placed(NamedTuple):
    """A block or join with its size and, for an open block, its insides relative to its own corner."""

    item: Block | Join
    width: float
    height: float
    axis: float  # x of the line that the data follow
    inside: list[tuple[float, "Placed"]]  # (y, item)
    lanes: dict[int, float]  # x of the lane of each source that something skips to
    title: str


def draw(block: Block, depth: int) -> str:
    """SVG text; boxes are opened down to `depth` levels inside `block`."""
    top = _place(block, depth, "")
    width, height = max(top.width, 420) + 2 * PAD, top.height + 2 * PAD + 66
    parts = [
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" height="{1:.0f}">'
            "<title>{2}</title><style>{3}</style>"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#444"/></marker></defs>'
            '<rect width="100%" height="100%" fill="#fff"/>'
        ).format(width, height, block.path or "network", Markup(STYLE)),
        *_legend(),
    ]
    x, y = (width - top.width) / 2, PAD + 40
    _edge(parts, [(x + top.axis, y - 22), (x + top.axis, y)])
    _text(parts, shape(block.input_shape), x + top.axis + 6, y - 8, "small")
    _draw(parts, top, x, y, 0)
    below = y + top.height
    _edge(parts, [(x + top.axis, below), (x + top.axis, below + 22)])
    _text(parts, shape(block.output_shape), x + top.axis + 6, below + 16, "small")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(item: Block | Join, depth: int, above: str) -> Placed:
    if isinstance(item, Join):
        title = " ".join(item.operations[:6]) or "•"
        width = max(PILL, CHAR * len(title) + 12)
        return Placed(item, width, PILL, width / 2, [], {}, title)
    title = item.path.removeprefix(f"{above}.") or "network"
    width = max(CHAR * len(title), SMALL * len(_subtitle(item))) + 24
    if depth == 0 or not item.items:
        return Placed(item, width, LEAF, width / 2, [], {}, title)
    items, edges = folded(item)
    placed = [_place(i, depth - 1, item.path) for i in items]
    order = _lanes(edges, len(items))
    left = PAD + LANE * (max(order.values(), default=-1) + 1)
    axis = left + max(p.axis for p in placed)
    right = max(max(p.width - p.axis, SMALL * len(_shape_below(p.item)) + 8) for p in placed) + PAD
    half = max(axis, right, width / 2)  # data enter and leave in the middle
    shift, y, inside = half - axis, HEAD + GAP / 2, []
    for p in placed:
        inside.append((y, p))
        y += p.height + GAP
    lanes = {source: shift + left - LANE * (lane + 0.5) for source, lane in order.items()}
    return Placed(Block(**{**vars(item), "items": items, "edges": edges}), 2 * half, y, half, inside, lanes, title)


def _draw(parts: list[Markup], placed: Placed, x: float, y: float, level: int) -> None:
    item = placed.item
    if isinstance(item, Join):
        _rect(parts, "pill", x, y, placed.width, placed.height, PILL / 2, "")
        _text(parts, placed.title, x + placed.width / 2, y + 14, "", "middle")
        return
    colour = _colour(item.kind)
    fill = ("#f4f4f4", "#ffffff")[level % 2] if placed.inside else "#ffffff"
    _rect(parts, "box", x, y, placed.width, placed.height, 6, f'fill="{fill}" stroke="{colour}"')
    _rect(parts, "", x, y, 5, placed.height, 2, f'fill="{colour}"')
    middle = x + placed.width / 2
    at = x + 14 if placed.inside else middle
    anchor = "start" if placed.inside else "middle"
    _text(parts, placed.title, at, y + 17, "name", anchor)
    _text(parts, _subtitle(item), at, y + 32, "small", anchor)
    if not placed.inside:
        return
    axis = x + placed.axis
    boxes = []
    for dy, child in placed.inside:
        _draw(parts, child, axis - child.axis, y + dy, level + 1)
        boxes.append((axis - child.axis, y + dy, child))
        _text(parts, _shape_below(child.item), axis + 6, y + dy + child.height + 15, "small")
    for edge in item.edges:
        _draw_edge(parts, edge, boxes, axis, (y + HEAD - 4, y + placed.height), x, placed.lanes)


def _draw_edge(
    parts: list[Markup],
    edge: Edge,
    boxes: list[tuple[float, float, Placed]],
    axis: float,
    ends: tuple[float, float],
    x: float,
    lanes: dict[int, float],
) -> None:
    """Straight down to the next item, or through the lane of its source."""
    start = ends[0] if edge.source == INPUT else boxes[edge.source][1] + boxes[edge.source][2].height
    straight = edge.target == edge.source + 1 or (edge.target == OUTPUT and edge.source == len(boxes) - 1)
    if straight:
        stop = ends[1] if edge.target == OUTPUT else boxes[edge.target][1]
        _edge(parts, [(axis, start), (axis, stop)])
        return
    lane, bend = x + lanes[edge.source], start + 9
    path = [(axis, start), (axis, bend), (lane, bend)]
    if edge.target == OUTPUT:
        _edge(parts, [*path, (lane, ends[1] - 8), (axis, ends[1] - 8), (axis, ends[1])])
        return
    left, top, target = boxes[edge.target]
    into = top + (PILL if isinstance(target.item, Join) else LEAF) / 2
    _edge(parts, [*path, (lane, into), (left, into)])


def _lanes(edges: list[Edge], n_items: int) -> dict[int, int]:
    """Source -> lane, 0 the innermost; two sources whose spans overlap never share one."""
    spans: dict[int, int] = {}
    for source, target in edges:
        last = n_items if target == OUTPUT else target
        if last > source + 1:
            spans[source] = max(spans.get(source, 0), last)
    lanes: dict[int, int] = {}
    for source in sorted(spans, key=lambda s: (spans[s] - s, s)):
        taken = {lanes[s] for s in lanes if s <= spans[source] and source <= spans[s]}
        lanes[source] = next(i for i in range(len(spans)) if i not in taken)
    return lanes


def folded(block: Block) -> tuple[list[Block | Join], list[Edge]]:
    """A row of equal layers becomes the first of them and one box for all others."""
    items: list[Block | Join] = []
    place: dict[int, int] = {INPUT: INPUT, OUTPUT: OUTPUT}
    first = 0
    for i, item in enumerate(block.items):
        if i and _continues(block, i) and place[i - 1] != first:
            place[i] = place[i - 1]
            more = items[-1]
            assert isinstance(more, Block) and isinstance(item, Block)
            start = more.path.partition(" … ")[0]
            name = f"{start} … {item.path.rpartition('.')[2]}"
            items[-1] = Block(name, item.kind, more.parameters + item.parameters, more.input_shape, item.output_shape)
            continue
        if i and _continues(block, i):
            assert isinstance(item, Block)
            items.append(Block(item.path, item.kind, item.parameters, item.input_shape, item.output_shape))
        else:
            items.append(item)
            first = len(items) - 1
        place[i] = len(items) - 1
    edges = list(dict.fromkeys(Edge(place[s], place[t]) for s, t in block.edges))
    return items, [e for e in edges if e.source != e.target]


def _continues(block: Block, i: int) -> bool:
    """Is item i the next layer after its neighbour, alike and fed by nothing else?"""
    this, last = block.items[i], block.items[i - 1]
    if isinstance(this, Join) or isinstance(last, Join) or not this.path.rpartition(".")[2].isdigit():
        return False
    alike = (this.kind, this.parameters, this.output_shape) == (last.kind, last.parameters, last.output_shape)
    same_list = this.path.rpartition(".")[0] == last.path.rpartition(".")[0] and bool(this.items)
    return alike and same_list and {e.source for e in block.edges if e.target == i} == {i - 1}


def _legend() -> list[Markup]:
    parts: list[Markup] = []
    x = PAD
    for name, (_, colour) in FAMILIES.items():
        _rect(parts, "", x, 10, 5, 14, 2, f'fill="{colour}"')
        _text(parts, name, x + 9, 21, "small")
        x += 18 + SMALL * len(name)
    return parts


def _colour(kind: str) -> str:
    return next((c for words, c in FAMILIES.values() if any(w in kind for w in words.split())), OTHER)


def _subtitle(block: Block) -> str:
    return block.kind + (f", {amount(block.parameters)} parameters" if block.parameters else "")


def _shape_below(item: Block | Join) -> str:
    return shape(item.output_shape if isinstance(item, Block) else item.shape)


def _edge(parts: list[Markup], points: list[tuple[float, float]]) -> None:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(Markup('<polyline class="edge" points="{}" marker-end="url(#arrow)"/>').format(path))


def _rect(parts: list[Markup], cls: str, x: float, y: float, w: float, h: float, r: float, more: str) -> None:
    sizes = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{r:.1f}"'
    parts.append(Markup('<rect class="{}" {} {}/>').format(cls, Markup(sizes), Markup(more)))


def _text(parts: list[Markup], text: str, x: float, y: float, cls: str, anchor: str = "start") -> None:
    at = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">').format(cls, x, y, anchor)
    parts.append(at + escape(text) + Markup("</text>"))
