package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// choice is what the schedule seed decides besides the random numbers that Go reads: see doc.go.
type choice string

const (
	noChoice  choice = "none"
	allChoice choice = "order,locks,lines"
)

// job is one run of the simulator.
type job struct {
	Seed, Schedule uint64
	Without        []int // the numbers of faults to leave out
	Brief          bool  // a short schedule on three nodes
	Choice         choice
	Control        string // of package peertest, instead of the schedule of the seed
	Fault          int    // the number of a fault in weir, see faults; 0: none
}

// String returns the job in the form that make sim accepts.
func (j job) String() string {
	s := fmt.Sprintf("SEED=%d SCHEDULE=%d", j.Seed, j.Schedule)
	if len(j.Without) > 0 {
		s += " WITHOUT=" + numbers(j.Without)
	}
	return s
}

func numbers(list []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
}

func (j job) args() []string {
	args := []string{"-test.run", "^TestSim$", "-seed", fmt.Sprint(j.Seed), "-report"}
	if len(j.Without) > 0 {
		args = append(args, "-without", numbers(j.Without))
	}
	if j.Brief {
		args = append(args, "-brief")
	}
	if j.Control != "" {
		args = append(args, "-control", j.Control)
	}
	return args
}

// report is the result of a job. The simulator prints it.
type report struct {
	Digest  string   // stands for everything that happened
	Faults  int      // how many the plan reached, including those that were left out
	Broken  []broken // violations
	First   *sighting
	Failed  []string // other failures
	Summary string
}

// broken is a violation with the part of the history that shows it.
type broken struct{ What, History string }

// kinds returns what was broken: the guarantees, or that something else failed.
func (r report) kinds() map[string]bool {
	out := make(map[string]bool)
	for _, b := range r.Broken {
		out[strings.SplitN(b.What, " ", 2)[0]] = true
	}
	if len(r.Failed) > 0 {
		out["failure"] = true
	}
	return out
}

func (r report) ok() bool { return len(r.Broken)+len(r.Failed) == 0 }

// maxReadings is how often a run may read its clock. It ends runs that loop forever.
const maxReadings = 2_000_000_000

// simulator runs jobs, several at once if needed.
type simulator struct {
	cache   wazero.CompilationCache
	runtime wazero.Runtime
	module  wazero.CompiledModule
}

// load compiles the simulator for this machine. dir keeps the result and drops earlier ones.
func load(ctx context.Context, wasm, dir string) (*simulator, error) {
	b, err := os.ReadFile(wasm)
	if err != nil {
		return nil, err
	}
	kept := filepath.Join(dir, fmt.Sprintf("compiled-%x", sha256.Sum256(b)))
	others, err := filepath.Glob(filepath.Join(dir, "compiled-*"))
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if other != kept {
			if err := os.RemoveAll(other); err != nil {
				return nil, err
			}
		}
	}
	cache, err := wazero.NewCompilationCacheWithDir(kept)
	if err != nil {
		return nil, err
	}
	s := &simulator{cache: cache, runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(cache))}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, s.runtime); err != nil {
		return nil, err
	}
	s.module, err = s.runtime.CompileModule(ctx, b)
	return s, err
}

func (s *simulator) close(ctx context.Context) error {
	return errors.Join(s.runtime.Close(ctx), s.cache.Close(ctx))
}

// run runs a job.
func (s *simulator) run(ctx context.Context, j job) (r report) {
	var out bytes.Buffer
	err := s.exec(ctx, j, &out, j.args()...)
	for line := range strings.Lines(out.String()) {
		if text, ok := strings.CutPrefix(line, "report "); ok {
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				r.Failed = append(r.Failed, err.Error())
			}
		}
	}
	if r.Digest == "" || err != nil && r.ok() { // it crashed, or something other than the simulation failed
		text := out.String()
		r.Failed = append(r.Failed, fmt.Sprintf("%v\n%s", err, text[:min(len(text), 8000)]))
	}
	return r
}

// newRandom returns a random source that is initialised with seed.
func newRandom(seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// exec runs the test binary with arguments. The job's schedule seed decides everything that the arguments leave open.
func (s *simulator) exec(ctx context.Context, j job, out io.Writer, args ...string) error {
	var now, readings int64
	read := func() int64 {
		if readings++; readings > maxReadings {
			panic("the run does not end")
		}
		now += int64(time.Microsecond)
		return now
	}
	cfg := wazero.NewModuleConfig().WithName("").WithStdout(out).WithStderr(out).
		WithArgs(append([]string{"peertest"}, args...)...).WithEnv("SIM_CHOICE", string(j.Choice)).WithEnv("SIM_FAULT", fmt.Sprint(j.Fault)).
		WithRandSource(newRandom(j.Schedule)).
		WithNanotime(read, sys.ClockResolution(time.Microsecond)).
		WithWalltime(func() (int64, int32) { n := read(); return 1_700_000_000 + n/1e9, int32(n % 1e9) }, sys.ClockResolution(time.Microsecond)).
		WithNanosleep(func(ns int64) { now += ns }).
		WithOsyield(func() {})
	m, err := s.runtime.InstantiateModule(ctx, s.module, cfg)
	if m != nil {
		err = errors.Join(err, m.Close(ctx))
	}
	if exit, ok := errors.AsType[*sys.ExitError](err); ok && exit.ExitCode() == 0 {
		return nil
	}
	return err
}
