package command

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/scenario"
)

// TestMain makes the test binary the process of a node as well, as the command does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == harness.NodeArg {
		os.Exit(Main(Options{}, os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

func TestProcesses(t *testing.T) {
	out, _, err := do(t.Context(), Options{}, "--file", file(t, strings.Replace(mine, "nodes: 1", "nodes: 2, kind: processes", 1)))
	if err != nil || !strings.Contains(out, "2 nodes (processes)") {
		t.Errorf("%v\n%s", err, out)
	}
}

func do(ctx context.Context, o Options, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	c := New(o)
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errs)
	err = c.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

const mine = `name: mine
about: a test
duration: 300ms
cluster: {nodes: 1}
origin: {latency: {kind: fixed, p50: 1ms}}
load: [{callers: 2, keys: {kind: uniform, count: 20}}]
`

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestListAndShow(t *testing.T) {
	out, _, err := do(t.Context(), Options{}, "list")
	if err != nil || strings.Count(out, "\n") != len(scenario.Names()) || !strings.Contains(out, "hot-expiry") {
		t.Errorf("%v\n%s", err, out)
	}
	out, _, err = do(t.Context(), Options{}, "show", "storm")
	if err != nil || !strings.HasPrefix(out, "name: storm\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRunAndReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "result")
	out, progress, err := do(t.Context(), Options{}, "--file", file(t, mine), "--out", path, "--rounds", "2")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "| origin calls ") || !strings.Contains(progress, "weir, round 2 of 2") {
		t.Errorf("%s\n%s", out, progress)
	}
	for _, ext := range []string{".json", ".svg"} {
		if s, err := os.Stat(path + ext); err != nil || s.Size() == 0 {
			t.Errorf("%s: %v", ext, err)
		}
	}
	again, _, err := do(t.Context(), Options{}, "report", path+".json")
	if err != nil || again != out {
		t.Errorf("shown again it is another: %v\n%s\n%s", err, out, again)
	}
}

// TestClaims checks that a run with a violated claim ends with an error, after its table has been shown.
func TestClaims(t *testing.T) {
	const claims = "claims:\n  - {measure: amplification, most: 1, says: nothing is loaded twice}\n  - {measure: errors, most: 0, says: all are answered}\n"
	out, _, err := do(t.Context(), Options{}, "--file", file(t, mine+claims))
	if err != nil || !strings.Contains(out, "- amplification <= 1: nothing is loaded twice; held by weir (1.00).") {
		t.Errorf("%v\n%s", err, out)
	}
	out, _, err = do(t.Context(), Options{}, "--file", file(t, mine+strings.Replace(claims, "most: 1", "most: 0.5", 1)))
	if !errors.Is(err, errClaim) || !strings.Contains(err.Error(), "it is 1, and should be amplification <= 0.5: nothing") || strings.Contains(err.Error(), "all are") {
		t.Errorf("a claim that cannot be held: %v", err)
	}
	if !strings.Contains(out, "- amplification <= 0.5: nothing is loaded twice; NOT HELD by weir (1.00).") || !strings.Contains(out, "all are answered; held by weir") {
		t.Error(out)
	}
}

func TestWhatIsRefused(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"stomr"}, `no scenario "stomr"; there are brownout`},
		{[]string{"--file", file(t, mine+"rounds: 3\n")}, "line 7: field rounds not found"},
		{[]string{"storm", "--file", "x"}, "give one"},
		{[]string{"storm", "--trace", "x"}, "replays no trace"},
		{[]string{"storm", "--duration", "900h"}, "duration"},
		{[]string{"trace"}, "names none"},
		{[]string{"trace", "--trace", "/nowhere", "--format", "keys"}, "/nowhere"},
		{[]string{"trace", "--trace", "/nowhere", "--format", "tape"}, `"tape" is none of oraclegeneral`},
		{[]string{"storm", "--systems", "weir,magic"}, `no system "magic"; there are weir, rival`},
		{[]string{"storm", "--out", "/nowhere/x"}, "--out /nowhere/x cannot be written"},
		{[]string{"report", "/nowhere"}, "/nowhere"},
		{[]string{"show", "nothing"}, "there are brownout"},
	} {
		_, _, err := do(t.Context(), Options{Rivals: []harness.System{dead{}}}, c.args...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
}

// TestTraceReplacesKeys checks that a scenario with one load and generated keys can replay a trace, to its end.
func TestTraceReplacesKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(path, []byte(strings.Repeat("a\nb\nc\na\n", 50)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := do(t.Context(), Options{}, "hit-ratio-5", "--trace", path, "--format", "keys")
	if err != nil || !regexp.MustCompile(`hit ratio of answered gets +\| +98\.50 %`).MatchString(out) || !strings.Contains(out, "1 node") {
		t.Errorf("%v\n%s", err, out)
	}
}

// dead is a rival that does not start.
type dead struct{ harness.Weir }

func (dead) Name() string { return "rival" }
func (dead) Start(context.Context, harness.Env) (harness.Cluster, error) {
	return nil, errors.New("not installed")
}

func TestPartial(t *testing.T) {
	out, _, err := do(t.Context(), Options{Rivals: []harness.System{dead{}}}, "--file", file(t, mine))
	if !errors.Is(err, errPartial) || !strings.Contains(err.Error(), "rival: did not start: not installed") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(out, "rival (partial)") || !strings.Contains(out, "PARTIAL") || !regexp.MustCompile(`\| loads due \(ideal cache\) +\| +20 \|`).MatchString(out) {
		t.Errorf("%s", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	out, _, err = do(ctx, Options{}, "--file", file(t, mine), "--duration", "1h")
	if !errors.Is(err, errPartial) || !strings.Contains(out, "PARTIAL: interrupted, after") {
		t.Errorf("interrupted: %v\n%s", err, out)
	}
}

// otherName is a rival under another name.
type otherName struct{ dead }

func (otherName) Name() string { return "rival+limit" }

// TestOnlyNamed checks that systems of OnlyNamed are offered and found, that all does not mean them, and that they can be added to it.
func TestOnlyNamed(t *testing.T) {
	o := Options{Rivals: []harness.System{dead{}}, OnlyNamed: []harness.System{otherName{}}}
	for asked, want := range map[string]string{"all": "weir rival", "rival+limit": "rival+limit", "rival+limit, weir": "rival+limit weir", "all,rival+limit": "weir rival rival+limit"} {
		systems, err := choose(o, asked)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range systems {
			got = append(got, s.Name())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, not %s", asked, got, want)
		}
	}
	if usage := New(o).Flags().Lookup("systems").Usage; !strings.Contains(usage, "weir, rival, rival+limit; all leaves out the last 1") {
		t.Error(usage)
	}
}
