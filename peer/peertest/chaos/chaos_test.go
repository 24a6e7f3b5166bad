//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain leaves the long tests to make test-long, unless -run or -skip chooses.
func TestMain(m *testing.M) {
	if os.Getenv(nodeName) != "" {
		os.Exit(nodeMain())
	}
	flag.Parse()
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" {
		if err := flag.Set("test.skip", "^Test.*Long$"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// play performs a run and returns its output and its error.
func play(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if testing.Short() {
		t.Skip("this test runs processes in network namespaces, for which it needs root and iproute2")
	}
	s, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = chaos(t.Context(), s, func(format string, args ...any) {
		fmt.Fprintf(&b, format+"\n", args...)
		t.Logf(format, args...)
	})
	return b.String(), err
}

// TestChaosLong is a short version of make chaos: a round with every kind of fault on five processes. It takes about 50
// seconds.
func TestChaosLong(t *testing.T) {
	if _, err := play(t, "-seed", "6", "-for", "30s", "-round", "30s", "-hold", "8s"); err != nil {
		t.Error(err)
	}
}

// TestChaosSabotageLong checks that nodes which intentionally break a guarantee are detected.
func TestChaosSabotageLong(t *testing.T) {
	for _, c := range []struct{ sabotage, broken string }{{"deaf", "G2"}, {"greedy", "G4"}, {"young", "G3"}} {
		t.Run(c.sabotage, func(t *testing.T) {
			out, err := play(t, "-seed", "3", "-nodes", "3", "-cap", "3", "-for", "6s", "-faults", "origin", "-hold", "5s", "-keys", "30", "-clients", "6", "-pace", "20ms", "-sabotage", c.sabotage)
			if !errors.Is(err, errBroken) || !strings.Contains(out, c.broken+" is broken: ") {
				t.Errorf("%s is broken, and what was found is %v", c.broken, err)
			}
		})
	}
}

// TestChaosFaultsLong checks that each fault has its stated effect on the network.
func TestChaosFaultsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("this test runs processes in network namespaces, for which it needs root and iproute2")
	}
	s, err := parse([]string{"-seed", "3", "-nodes", "3"})
	if err != nil {
		t.Fatal(err)
	}
	l := newTestLab(t, 1, s.world)
	for _, c := range []struct {
		name          string
		begin         func() (undo func())
		broken, whole [2]int
	}{
		{"a cable that is out", func() func() { return l.cut(2) }, [2]int{0, 2}, [2]int{0, 1}},
		{"a cut of one way", func() func() { return l.cutOneWay([]int{0}, []int{1}) }, [2]int{0, 1}, [2]int{0, 2}},
		{"a split", func() func() { return l.split(1, 2) }, [2]int{0, 1}, [2]int{1, 2}},
	} {
		t.Log(c.name)
		first := c.begin()
		second := c.begin() // faults overlap
		dials(t, l, c.broken[0], c.broken[1], false)
		dials(t, l, c.whole[0], c.whole[1], true)
		first()
		dials(t, l, c.broken[0], c.broken[1], false)
		second()
		dials(t, l, c.broken[0], c.broken[1], true)
	}
	if err := l.failed(); err != nil {
		t.Error(err)
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct{ args, problem string }{
		{"-faults cut,stop", ""},
		{"-faults -cut,-stop", ""},
		{"-faults cut,-stop", "either kinds"},
		{"-faults cat", "no kind"},
		{"-nodes 1", "2 to 200"},
		{"-for 0s", "above 0"},
		{"-ttl x", "-ttl"},
		{"-cap -1", "above 0"},
		{"-sabotage x", "no \"x\""},
		{"now", "flags alone"},
	} {
		s, err := parse(strings.Fields("-seed 3 " + c.args))
		if (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %v, want %q", c.args, err, c.problem)
		}
		if err == nil && (s.seed != 3 || s.Cap != 10 || s.MinMembers != 5 || len(s.kinds) == 0) {
			t.Errorf("%s: %+v", c.args, s)
		}
	}
}

// TestExcerpt checks that the beginning and the end of a long history are shown.
func TestExcerpt(t *testing.T) {
	long := strings.Repeat("line\n", 200) + "end\n"
	if got := excerpt("first\n" + long); strings.Count(got, "\n") > 80 || !strings.HasPrefix(got, "first\n") || !strings.HasSuffix(got, "line\nend") || !strings.Contains(got, "lines") {
		t.Errorf("%q", got)
	}
	if got := excerpt("a\nb\n"); got != "a\nb" {
		t.Errorf("%q", got)
	}
}
