"""Run a notebook's cells in order in one namespace; the last value of each is shown as HTML where it can be.

Prints a line of JSON: the length of each shown page.
"""

import ast
import json
import sys
from pathlib import Path


def run(path):
    names, shown = {"__name__": "__main__"}, []
    for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        body = ast.parse("".join(cell["source"]))
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, path, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), path, "eval"), names)
            if hasattr(value, "_repr_html_"):
                shown.append(value._repr_html_())
    return shown


if __name__ == "__main__":
    pages = run(sys.argv[1])
    Path("shown.html").write_text("\n".join(pages), encoding="utf-8")
    print(json.dumps([len(page) for page in pages]))
