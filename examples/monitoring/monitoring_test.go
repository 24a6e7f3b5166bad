package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// metrics returns what a node with one cache, which has loaded something, serves to Prometheus.
func metrics(t *testing.T) string {
	t.Helper()
	node, err := peer.Start(t.Context(), peer.Config{Name: "a", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	c, err := tier.New(tier.Config[string]{
		Cluster: node, Namespace: "product", Freshness: tier.Freshness{TTL: time.Minute},
		Loader: func(_ context.Context, f *tier.Fill[string]) (string, error) {
			defer f.Step("postgres")()
			return f.Key, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Get(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	node.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNamesExist checks that every metric, and every label value, that the alerts and the dashboard name exists.
func TestNamesExist(t *testing.T) {
	text := metrics(t)
	if out := os.Getenv("WEIR_METRICS_OUT"); out != "" {
		if err := os.WriteFile(out, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	help := regexp.MustCompile(`(?m)^# HELP (\w+) (\S.*)$`).FindAllStringSubmatch(text, -1)
	if len(help) < 30 {
		t.Fatalf("only %d metrics", len(help))
	}
	values := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		values[m[1]+"="+m[2]] = true
	}
	for _, file := range []string{"alerts.yml", "dashboard.json", "alerts_test.yml"} {
		body := strings.ReplaceAll(read(t, file), `\"`, `"`)
		names := regexp.MustCompile(`\bweir_\w+`).FindAllString(body, -1)
		if len(names) == 0 {
			t.Errorf("%s names no metrics", file)
		}
		for _, name := range names {
			if !regexp.MustCompile(`(?m)^` + name + `[ {]`).MatchString(text) {
				t.Errorf("%s: no metric is called %s", file, name)
			}
		}
		if file == "alerts_test.yml" {
			continue
		}
		for _, m := range regexp.MustCompile(`\b(state|source|cause|result|reason|direction|tier)="([^"$]*)"`).FindAllStringSubmatch(body, -1) {
			if !values[m[1]+"="+m[2]] {
				t.Errorf("%s: no metric has the label %s", file, m[0])
			}
		}
	}
}

// TestDashboard checks that the dashboard is JSON whose panels all have a title, a unit and a query.
func TestDashboard(t *testing.T) {
	var d struct {
		UID    string
		Panels []struct {
			Type, Title string
			FieldConfig struct{ Defaults struct{ Unit string } }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || len(d.Panels) < 10 {
		t.Errorf("%q with %d panels", d.UID, len(d.Panels))
	}
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || len(p.Targets) == 0 || p.FieldConfig.Defaults.Unit == "" {
			t.Errorf("panel %q (%s) lacks something", p.Title, p.Type)
		}
		for _, q := range p.Targets {
			if strings.Count(q.Expr, "(") != strings.Count(q.Expr, ")") || q.Expr == "" {
				t.Errorf("panel %q: %s", p.Title, q.Expr)
			}
		}
	}
}

// TestPromtool checks that promtool accepts the metrics, and that the alerts fire exactly when they should. make
// monitoring runs it. Without promtool the other tests still run.
func TestPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not installed: apt-get install prometheus; make monitoring insists on it")
		return
	}
	run := func(stdin string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), tool, args...)
		cmd.Stdin = strings.NewReader(stdin)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out.String())
		}
	}
	run(metrics(t), "check", "metrics")
	run("", "check", "rules", "alerts.yml")
	run("", "test", "rules", "alerts_test.yml")

	// The dashboard's queries become rules, so that promtool parses them.
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(read(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$namespace", "product", "$job", "weir").Replace(q.Expr)
			rules = append(rules, rule{Record: "x:" + strings.Repeat("y", len(rules)+1), Expr: expr})
		}
	}
	b, _ := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	file := t.TempDir() + "/dashboard.yml" // YAML is a superset of JSON
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	run("", "check", "rules", file)
}
