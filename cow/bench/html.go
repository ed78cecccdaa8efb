package bench

import (
	"errors"
	"html/template"
	"io"
	"strings"
)

// WriteHTML prints a page with everything in it: plots, the tables, the machine.
func (rep *Report) WriteHTML(w io.Writer) error {
	var page struct {
		*Report
		Plots          []template.HTML
		Table, Targets string
		When, Medians  string
	}
	page.Report, page.When, page.Medians = rep, rep.Machine.Time.Format("2 January 2006"), rep.medians()
	var text, targets strings.Builder
	if err := errors.Join(rep.WriteTable(&text), rep.WriteTargets(&targets)); err != nil {
		return err
	}
	page.Table, page.Targets = strings.TrimSuffix(text.String(), targets.String()), targets.String()
	plots, err := rep.plots()
	if err != nil {
		return err
	}
	for _, p := range plots {
		page.Plots = append(page.Plots, template.HTML(p.svg))
	}
	t, err := template.New("page").Parse(pageText) // here and not once: every start of plyfs would wait for it
	if err != nil {
		return err
	}
	return t.Execute(w, page)
}

// SVG returns the plots, by the names of their files.
func (rep *Report) SVG() (map[string][]byte, error) {
	plots, err := rep.plots()
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, p := range plots {
		out[p.name+".svg"] = []byte(p.svg)
	}
	return out, nil
}

const pageText = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What copy-up costs</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
figure { margin: 1.5rem 0 } svg { width: 100%; height: auto }
pre { overflow-x: auto; font-size: 13px; background: #f6f6f6; padding: 1rem }
</style></head><body>
<h1>What copy-up costs</h1>
<p>The first change of a file of a read-only layer, on {{.Filesystem}}, {{.When}}: Linux {{.Machine.Kernel}}, {{.Machine.CPUs}} processors
({{.Machine.CPU}}). {{.Medians}}, the filesystems in turns. “plain” copies the whole file, without syncing it, and then changes the copy.
Absolute times do not carry over to another machine; the distances between the lines do.</p>
{{if .Targets}}<h2>Targets</h2>
<pre>{{.Targets}}</pre>{{end}}
{{range .Plots}}<figure>{{.}}</figure>{{end}}
<h2>All figures</h2>
<pre>{{.Table}}</pre>
</body></html>
`
