"""python build.py draft.txt out.ipynb: blocks '%% md', '%% code [tags=a,b] [alt=...]', '%% taught FILE NAME [NAME]'."""
import ast, re, sys
from pathlib import Path
import nbformat
from nbformat.v4 import new_notebook, new_markdown_cell, new_code_cell
sys.path.insert(0, "/work/main/tools")
import notebooks as tools
src, out = sys.argv[1], Path(sys.argv[2])
ROOT = Path("/work/main")
cells = []
for block in re.split(r"^%% ", Path(src).read_text(), flags=re.M)[1:]:
    head, _, body = block.partition("\n")
    body = body.strip("\n")
    kind, _, rest = head.partition(" ")
    if kind == "md":
        cells.append(new_markdown_cell(body))
        continue
    meta = {}
    if kind == "taught":
        file, *names = rest.split()
        text = (ROOT / file).read_text()
        parts = []
        for node in ast.parse(text).body:
            if getattr(node, "name", None) in names:
                parts.append("\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]))
        assert len(parts) == len(names), rest
        body = f"# {file}\n" + "\n\n\n".join(parts)
    else:
        if m := re.search(r"tags=(\S+)", rest):
            meta["tags"] = m[1].split(",")
        if m := re.search(r"alt=(.*)", rest):
            meta["alt"] = m[1].strip()
    cells.append(new_code_cell(body, metadata=meta))
for i, c in enumerate(cells):
    c["id"] = f"c{i:03d}"
nb = new_notebook(cells=cells)
nb.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
if out.exists() and "--keep" in sys.argv:
    old = {c.source: c for c in nbformat.read(out, 4).cells if c.cell_type == "code"}
    for c in nb.cells:
        if c.cell_type == "code" and c.source in old:
            c.outputs, c.execution_count = old[c.source].outputs, old[c.source].execution_count
    nb.metadata = nbformat.read(out, 4).metadata
nbformat.write(nb, out)
print(len(cells), "cells")
