package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "bring the documents' tables up to date")

func sample(t *testing.T) *harness.Report {
	t.Helper()
	s, err := scenario.Builtin("restart")
	if err != nil {
		t.Fatal(err)
	}
	round := harness.Round{
		Measures: harness.Measures{Gets: 1000, OriginCalls: 10, P99: 1.5, HitRatio: 0.99, Answered: 1, Recover: harness.Never()},
		Errors:   map[string]int64{"timed out": 3}, Width: scenario.Duration(time.Second),
		Timeline: []harness.Point{{T: 0, Offered: 5, P99: 1}, {T: 1, Offered: 6}},
		Counters: map[string]float64{harness.HeldBytes: 3 << 20},
		Marks:    []harness.Mark{{At: scenario.Duration(time.Second), What: "kill node 1"}},
	}
	other := round
	other.Measures.OriginCalls, other.Partial = 4000, "the server died\nat a line"
	other.Counters = map[string]float64{harness.HeldBytes: 47 << 20, harness.AllocatedBytes: 4500 << 20}
	return &harness.Report{Schema: harness.Schema, Machine: "a machine", Revision: "0123456789ab", Command: "bench restart", Scenario: s, Rounds: 1, Partial: "rival: died",
		Began: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC),
		Systems: []*harness.Result{
			{Name: "weir", Setup: "as it comes", Rounds: []harness.Round{round}, Overall: round.Measures, Least: round.Measures, Most: round.Measures},
			{Name: "a <b>rival</b>", Setup: "v1", Limits: []string{"cut"}, Cannot: []string{"kill node 1: cannot"}, Partial: other.Partial,
				Rounds: []harness.Round{other}, Overall: other.Measures, Least: other.Measures, Most: other.Measures},
			{Name: "absent", Setup: "v2", Partial: "not installed", Rounds: []harness.Round{}},
		}}
}

func render(t *testing.T, r *harness.Report, write func(io.Writer, *harness.Report) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	text := render(t, sample(t), Text)
	for _, want := range []string{
		"PARTIAL, not all was measured: rival: died", "a <b>rival</b> (partial)", " 10 |", "4,000 |", "not within the run",
		"It has no cut. In this scenario it did not do: kill node 1: cannot. At the end it held 47.0 MiB, and had allocated 4,500 MiB for that. PARTIAL: the server died.",
		"weir: as it comes. At the end it held 3.00 MiB. Errors", "absent: v2. PARTIAL", "3 timed out", "absent (partial)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	// A partial run does not rank better for having sent fewer requests.
	r := sample(t)
	r.Systems[1].Overall.OriginCalls, r.Systems[1].Least.OriginCalls, r.Systems[1].Most.OriginCalls = 1, 1, 1
	if part := render(t, r, Text); strings.Contains(part, " 1 * |") {
		t.Errorf("a system that was measured in part is the best:\n%s", part)
	}
	if strings.Contains(text, "wrong answers") {
		t.Error("a row that is 0 for all is shown")
	}
	width := -1
	for _, l := range strings.Split(text, "\n") {
		if strings.HasPrefix(l, "|") {
			if n := len([]rune(l)); width >= 0 && n != width {
				t.Errorf("the table is crooked at %s", l)
			} else {
				width = n
			}
		}
	}
}

// TestStars checks that a star needs rounds that do not overlap with those of the others, and a system that answers.
func TestStars(t *testing.T) {
	system := func(p99 ...harness.Time) *harness.Result {
		s := &harness.Result{Rounds: make([]harness.Round, 3)}
		s.Overall.P99, s.Least.P99, s.Most.P99 = p99[0], p99[1], p99[2]
		s.Overall.Answered, s.Least.Answered, s.Most.Answered = 1, 1, 1
		return s
	}
	p99 := measures()[slices.IndexFunc(measures(), func(m measure) bool { return m.name == "p99_ms" })]
	amplification := measures()[slices.IndexFunc(measures(), func(m measure) bool { return m.name == "amplification" })]
	stars := func(m measure, systems ...*harness.Result) string {
		out := ""
		for _, b := range m.best(&harness.Report{Systems: systems}) {
			out += map[bool]string{true: "*", false: "-"}[b]
		}
		return out
	}
	for _, c := range []struct {
		name string
		a, b []harness.Time
		want string
	}{
		{"apart", []harness.Time{2, 1, 3}, []harness.Time{5, 4, 6}, "*-"},
		{"overlapping", []harness.Time{2, 1, 4}, []harness.Time{5, 4, 6}, "--"},
		{"equal", []harness.Time{2, 1, 4}, []harness.Time{2, 1, 6}, "--"},
		{"failed", []harness.Time{harness.Never(), 1, harness.Never()}, []harness.Time{5, 4, 6}, "--"},
	} {
		if got := stars(p99, system(c.a...), system(c.b...)); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
	quick, sound := system(1, 1, 1), system(5, 5, 5)
	quick.Least.Answered = 0.99
	if got := stars(p99, quick, sound, system(9, 9, 9)); got != "-*-" {
		t.Errorf("a system that fails fast: %s", got)
	}
	quick = system(1, 1, 1)
	quick.Overall.Broken = 1
	if got := stars(p99, quick, sound, system(9, 9, 9)); got != "-*-" {
		t.Errorf("a system that ignores invalidations: %s", got)
	}
	late := system(3, 3, 3)
	late.Overall.LateP99 = 0.4
	if got := stars(p99, late, sound, system(9, 9, 9)); got != "-*-" || p99.cell(late) != void {
		t.Errorf("a value that is the harness's own: %s, %s", got, p99.cell(late))
	}
	few, exact, many := system(1, 1, 1), system(1, 1, 1), system(1, 1, 1)
	for s, x := range map[*harness.Result]float64{few: 0.97, exact: 1, many: 2} {
		s.Overall.Amplification, s.Least.Amplification, s.Most.Amplification = x, x, x
	}
	if got := stars(amplification, few, exact, many); got != "-*-" {
		t.Errorf("loads that were omitted: %s", got)
	}
}

func TestJSONComesBack(t *testing.T) {
	r := sample(t)
	path := filepath.Join(t.TempDir(), "r.json")
	if err := os.WriteFile(path, []byte(render(t, r, JSON)), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, r) || render(t, got, Text) != render(t, r, Text) {
		t.Errorf("a report changes when it is written and read:\n%+v\n%+v", r, got)
	}
	for text, want := range map[string]string{`{"schema":99}`: "schema 99", `[]`: "no result", ``: "no result", `{"schema":1}`: "schema 1",
		`{"schema":2,"scenario":{},"systems":[null]}`: "null"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadJSON(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ReadJSON(path + ".not"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestSVG(t *testing.T) {
	r := sample(t)
	r.Systems[0].Rounds[0].Phases = []harness.Phase{{From: 0, To: 3e9, OriginCalls: 6}, {What: "leave node 1", From: 3e9, To: 7e9, Caused: 75}}
	for _, name := range figures() {
		var b bytes.Buffer
		if err := SVG(&b, r, name); err != nil {
			t.Fatal(err)
		}
		if err := xml.Unmarshal(b.Bytes(), new(struct {
			XMLName xml.Name `xml:"svg"`
		})); err != nil {
			t.Errorf("%s is no SVG: %v", name, err)
		}
		for _, want := range map[string][]string{"origin_calls": {">4,000<", ">not measured<", "0123456789ab, a machine"},
			"events": {">leave node 1<", ">75<", ">not measured<"}, "timeline": {"<polyline points=\"52.0,42.0 ", ">weir<"}}[name] {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s lacks %s:\n%s", name, want, b.String())
			}
		}
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("%s is drawn out of bounds:\n%s", name, b.String())
		}
	}
	if err := SVG(io.Discard, sample(t), "events"); err == nil || !strings.Contains(err.Error(), "by_fault") {
		t.Error(err)
	}
	r.Abridge()
	if err := SVG(io.Discard, r, "timeline"); err == nil || !strings.Contains(err.Error(), "no timeline") {
		t.Error(err)
	}
	if err := SVG(io.Discard, sample(t), "beauty"); err == nil || !strings.Contains(err.Error(), "p99_ms") {
		t.Error(err)
	}
}

func TestFill(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "r.json"), []byte(render(t, sample(t), JSON)), 0o600); err != nil {
		t.Fatal(err)
	}
	doc := filepath.Join(dir, "doc.md")
	const text = "before\n<!-- bench:r.json -->\nout of date\n<!-- /bench -->\nafter\n<!-- bench:r.json -->\n<!-- /bench -->\n"
	if err := os.WriteFile(doc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if stale, err := fillFile(doc, false); !stale || err != nil {
		t.Errorf("out of date: %t, %v", stale, err)
	}
	if _, err := fillFile(doc, true); err != nil {
		t.Fatal(err)
	}
	if stale, err := fillFile(doc, false); stale || err != nil {
		t.Errorf("still out of date: %t, %v", stale, err)
	}
	b, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	if !strings.HasPrefix(got, "before\n<!-- bench:r.json -->\n") || !strings.Contains(got, "<!-- /bench -->\nafter\n") || strings.Contains(got, "out of date") ||
		strings.Count(got, "origin calls") != 2 || !strings.HasSuffix(got, "<!-- /bench -->\n") {
		t.Errorf("the document is\n%s", got)
	}
	if got, err := fill([]byte("<!-- speed:x.json -->\n<!-- /bench -->"), dir); err != nil || !strings.Contains(string(got), "not measured") {
		t.Errorf("a table that is not there: %q, %v", got, err)
	}
	for text, want := range map[string]string{"nothing\n": "no marker", "<!-- speed:r.json -->\n<!-- /bench -->": "no rows", "<!-- bench:r.json -->\n": "not closed", "<!-- bench:x.json -->\n<!-- /bench -->": "x.json"} {
		if _, err := fill([]byte(text), dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestDocuments checks that the tables in the documents match the result files. To update them: make bench-docs.
func TestDocuments(t *testing.T) {
	docs := []string{"../speed.md"}
	if files, err := filepath.Glob("../results/*.json"); err != nil || slices.ContainsFunc(files, func(f string) bool { return filepath.Base(f) != "speed.json" }) {
		docs = append(docs, "../README.md")
	}
	for _, doc := range docs {
		stale, err := fillFile(doc, *update)
		if err != nil {
			t.Error(err)
		}
		if stale && !*update {
			t.Errorf("%s is not what its result files say: run make bench-docs", doc)
		}
	}
}
