package bench

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{7, 1, 100}, 7}, {[]float64{4, 1, 3, 2}, 2.5}} {
		was := slices.Clone(c.xs)
		if got := Median(c.xs); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.xs, got, c.want)
		}
		if !slices.Equal(was, c.xs) {
			t.Errorf("Median changed %v to %v", was, c.xs)
		}
	}
}

func TestRoundsAlternate(t *testing.T) {
	var order strings.Builder
	turn := func(name string, ns ...time.Duration) Contender {
		i := -1
		return Contender{name, func() (Sample, error) {
			i++
			order.WriteString(name)
			return Sample{Calls: 1, Elapsed: ns[i]}, nil
		}}
	}
	// The machine was ten times slower in the second round. The ratio of the medians would be 2 as well, but that
	// of the means, and of unpaired rounds, would not.
	got, err := Rounds(3, turn("a", 20, 200, 24), turn("b", 10, 100, 12))
	if err != nil {
		t.Fatal(err)
	}
	if order.String() != "abbaab" {
		t.Errorf("turns %q, want abbaab", &order)
	}
	if x := got["a"].Median(Nanos); x != 24 {
		t.Errorf("median %v, want 24", x)
	}
	if x := got["a"].Ratio(got["b"], Nanos); x != 2 {
		t.Errorf("ratio %v, want 2", x)
	}
	meant := errors.New("meant")
	if _, err := Rounds(2, Contender{"c", func() (Sample, error) { return Sample{}, meant }}); !errors.Is(err, meant) || !strings.Contains(err.Error(), "c, round 1") {
		t.Errorf("an error of a turn: %v", err)
	}
}

func TestRatioIsPaired(t *testing.T) {
	a := Results{{Calls: 1, Elapsed: 10}, {Calls: 1, Elapsed: 100}, {Calls: 1, Elapsed: 30}}
	b := Results{{Calls: 1, Elapsed: 1}, {Calls: 1, Elapsed: 20}, {Calls: 1, Elapsed: 30}}
	if x := a.Ratio(b, Nanos); x != 5 { // of 10, 5, 1; the ratio of the medians is 1.5
		t.Errorf("ratio %v, want 5", x)
	}
}

func TestLoad(t *testing.T) {
	var calls, closed, most, now atomic.Int64
	c, err := NewCallers(4, func(int) (Caller, error) {
		return Caller{
			Call: func() error {
				most.Store(max(most.Load(), now.Add(1)))
				calls.Add(1)
				now.Add(-1)
				return nil
			},
			Close: func() { closed.Add(1) },
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := calls.Load(); n != 4 {
		t.Errorf("%d calls to warm up, want one of each of 4", n)
	}
	calls.Store(0)
	s, err := c.Load(20 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if s.Calls != calls.Load() || s.Calls < 4 {
		t.Errorf("%d calls counted, %d made", s.Calls, calls.Load())
	}
	if s.Elapsed < 20*time.Millisecond || s.P50 > s.P99 || s.PerSecond() <= 0 {
		t.Errorf("%+v", s)
	}
	if most.Load() > 4 {
		t.Errorf("%d at once, want at most 4", most.Load())
	}
	c.Close()
	if closed.Load() != 4 {
		t.Errorf("%d closed, want 4", closed.Load())
	}
	if _, err := c.Load(time.Millisecond); err == nil {
		t.Error("a load without callers: no error")
	}
}

func TestLoadErrors(t *testing.T) {
	meant, closed, n := errors.New("meant"), 0, 0
	if _, err := NewCallers(3, func(i int) (Caller, error) {
		if i == 2 {
			return Caller{}, meant
		}
		return Caller{Call: func() error { return nil }, Close: func() { closed++ }}, nil
	}); !errors.Is(err, meant) || closed != 2 {
		t.Errorf("the third caller fails: %v, %d closed, want 2", err, closed)
	}
	if _, err := NewCallers(0, nil); err == nil {
		t.Error("no callers: no error")
	}
	c, err := NewCallers(1, func(int) (Caller, error) {
		return Caller{Call: func() error {
			if n++; n > 3 {
				return meant
			}
			return nil
		}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Load(time.Hour); !errors.Is(err, meant) { // must end well before an hour
		t.Errorf("a call fails: %v", err)
	}
}

func TestBatch(t *testing.T) {
	var sum atomic.Int64
	var kept []*[64]byte
	s, err := Batch(2, 1000, func(g, n int) error {
		sum.Add(int64(n))
		if g == 0 {
			for range n {
				kept = append(kept, new([64]byte))
			}
		}
		return nil
	})
	if err != nil || s.Calls != 2000 || sum.Load() != 2000 || len(kept) != 1000 {
		t.Errorf("%+v, %v; %d calls", s, err, sum.Load())
	}
	if s.Allocs < 0.5 || s.Allocs > 1 {
		t.Errorf("%v allocations a call, want half of one and little more", s.Allocs)
	}
	meant := errors.New("meant")
	if _, err := Batch(2, 1, func(g, _ int) error { return []error{nil, meant}[g] }); !errors.Is(err, meant) {
		t.Errorf("a body fails: %v", err)
	}
	timed, err := Timed(2, 10, func(g, k int) error {
		if g == 1 && k == 9 {
			<-time.After(20 * time.Millisecond) // the one slow call of twenty
		}
		return nil
	})
	if err != nil || timed.Calls != 20 || timed.P50 >= timed.P99 || timed.P99 < 20*time.Millisecond {
		t.Errorf("timed: %+v, %v", timed, err)
	}
	if _, err := Timed(1, 3, func(_, k int) error { return []error{nil, meant, nil}[k] }); !errors.Is(err, meant) {
		t.Errorf("a timed body fails: %v", err)
	}
	if _, err := Timed(1, 0, nil); err == nil {
		t.Error("no timed call: no error")
	}
	if _, err := Batch(0, 1, nil); err == nil {
		t.Error("no goroutines: no error")
	}
}

func TestTable(t *testing.T) {
	table := Table{Heading: []string{"On a machine."}}
	table.Add(
		Row{What: "hit, ns", Result: "115", Floor: "100 floor", Ratio: 1.15, Aim: AtMost(1.15)},
		Row{What: "hop", Result: "299", Floor: "100 µ", Ratio: 2.99, Aim: AtLeast(3)},
		Row{What: "calls", Result: "1", Value: 1, Aim: AtMost(1)},
		Row{What: "Redis", Result: "5", Aim: AtLeast(3), Note: "not installed"},
		Row{What: "just so", Result: "7"},
	)
	var b strings.Builder
	n, err := table.WriteTo(&b)
	want := `On a machine.

| what    | result | floor     | ratio  | aim       |               |
| ------- | ------ | --------- | ------ | --------- | ------------- |
| hit, ns | 115    | 100 floor | 1.15 x | <= 1.15 x | met           |
| hop     | 299    | 100 µ     | 2.99 x | >= 3 x    | LOST          |
| calls   | 1      |           |        | <= 1      | met           |
| Redis   | 5      |           |        | >= 3      | not installed |
| just so | 7      |           |        |           |               |
`
	if b.String() != want || err != nil || int(n) != len(want) {
		t.Errorf("wrote %d, %v:\n%s\nwant:\n%s", n, err, &b, want)
	}
	path := filepath.Join(t.TempDir(), "t.json")
	if err := table.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadTable(path); err != nil || !reflect.DeepEqual(got, &table) {
		t.Errorf("the table came back as %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"rows":[{"aim":"< 3"}]}`, `{"rows":[{"aim":"<= x"}]}`} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTable(path); err == nil {
			t.Errorf("%q is read as a table", bad)
		}
	}
	if table.Lost() != 1 {
		t.Errorf("%d lost, want 1", table.Lost())
	}
	if AtMost(1).met(math.NaN()) || AtLeast(1).met(math.NaN()) || !(Aim{}).met(math.NaN()) {
		t.Error("NaN meets an aim, or does not meet none")
	}
}

func TestCount(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567.4: "1,234,567", -123: "-123", -1234: "-1,234"} {
		if got := Count(x); got != want {
			t.Errorf("Count(%v) = %q, want %q", x, got, want)
		}
	}
}

func TestMachine(t *testing.T) {
	if m := Machine(); strings.Contains(m, "\n") || !strings.Contains(m, " cores, go") {
		t.Errorf("%q", m)
	}
}

func TestChild(t *testing.T) {
	left := filepath.Join(t.TempDir(), "left")
	t.Setenv("BENCH_TEST_LEFT", left)
	p, err := Child("leaves")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Words, []string{"about", "to"}) {
		t.Errorf("it said %q", p.Words)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("it stopped before it was told")
	}
	for range 2 {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(left); string(b) != "left" {
		t.Errorf("after Stop: %q, %v", b, err)
	}
	if p, err = Child("greets"); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	for _, role := range []string{"fails", "unheard of"} {
		if p, err := Child(role); err == nil {
			t.Errorf("role %q: no error; %v", role, p.Stop())
		}
	}
	if _, err := Command("/no/such/program"); err == nil {
		t.Error("no such program: no error")
	}
	forever, err := Command("sleep", "3600")
	if err != nil {
		t.Fatal(err)
	}
	if err := forever.Stop(); err != nil {
		t.Error(err)
	}
}

func TestChildThatDoesNotObey(t *testing.T) {
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := StartChild(soon, exec.Command("sleep", "3600"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a child that is never ready: %v", err)
	}
	p, err := Child("greets")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Pause(), p.Resume(), p.Pause()); err != nil {
		t.Error(err)
	}
	if err := p.End(soon); err == nil || p.State() != "signal: killed" {
		t.Errorf("a child that stands still: %v, %s", err, p.State())
	}
}
