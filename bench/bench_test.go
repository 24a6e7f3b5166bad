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
	row := Row{Floor: "b", Rounds: got["a"].Beside(got["b"], nanos)}
	if x := Median(row.of(result)); x != 24 {
		t.Errorf("median %v, want 24", x)
	}
	if x := row.of(ratio); !slices.Equal(x, []float64{2, 2, 2}) {
		t.Errorf("ratios %v, want 2 in each round", x)
	}
	if x := got["a"].Beside(nil, nanos); !slices.Equal(x, []Round{{Result: 20}, {Result: 200}, {Result: 24}}) {
		t.Errorf("without a floor: %v", x)
	}
	meant := errors.New("meant")
	if _, err := Rounds(2, Contender{"c", func() (Sample, error) { return Sample{}, meant }}); !errors.Is(err, meant) || !strings.Contains(err.Error(), "c, round 1") {
		t.Errorf("an error of a turn: %v", err)
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

func TestSampleFigures(t *testing.T) {
	s := Sample{Calls: 4, Elapsed: 2 * time.Second, P50: time.Microsecond, P99: time.Millisecond, Allocs: 3, CPU: 8 * time.Microsecond}
	got := []float64{s.PerSecond(), P50Micros(s), P99Micros(s), CPUMicros(s), Allocs(s)}
	if want := []float64{2, 1, 1000, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTable(t *testing.T) {
	table := Table{Machine: "a machine", Revision: "0123456789ab", Heading: []string{"Quick."}}
	table.Rows = []Row{
		{What: "hit, ns", Floor: "floor", Aim: AtMost(1.15), Rounds: []Round{{115, 100}, {220, 200}, {90, 100}}},
		{What: "hop", Floor: "µ", Aim: AtLeast(3), Rounds: []Round{{296, 100}, {290, 100}}},
		{What: "gets/s", Floor: "Redis", Aim: AtLeast(3), Rounds: []Round{{308469.2, 100000}, {2000, 1000}}},
		{What: "calls", Aim: AtMost(1), Rounds: []Round{{Result: 1}, {Result: 1}}},
		{What: "just so", Rounds: []Round{{Result: 0.0123}, {Result: 0}}},
	}
	var b strings.Builder
	n, err := table.WriteTo(&b)
	want := `Measured on: a machine. Revision: 0123456789ab.
Quick.
A figure is the median of the rounds, in brackets the least and the most of a round. A ratio is taken within a round.
A verdict, met or LOST, needs every round on that side of the aim; open: there are rounds on each side.

| what    | result                    | floor                          | ratio                 | aim       |      |
| ------- | ------------------------- | ------------------------------ | --------------------- | --------- | ---- |
| hit, ns | 115 [90.0 - 220]          | 100 floor [100 - 200]          | 1.10 x [0.900 - 1.15] | <= 1.15 x | met  |
| hop     | 293 [290 - 296]           | 100 µ                          | 2.93 x [2.90 - 2.96]  | >= 3 x    | LOST |
| gets/s  | 155,235 [2,000 - 308,469] | 50,500 Redis [1,000 - 100,000] | 2.54 x [2.00 - 3.08]  | >= 3 x    | open |
| calls   | 1.00                      |                                |                       | <= 1      | met  |
| just so | 0.0062 [0 - 0.0123]       |                                |                       |           |      |
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
	for _, bad := range []string{"", "{}", `{"rows":[{"aim":"< 3"}]}`, `{"rows":[{"aim":"<= x"}]}`, `{"rows":[{"what":"a","aim":""}]}`} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTable(path); err == nil {
			t.Errorf("%q is read as a table", bad)
		}
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
