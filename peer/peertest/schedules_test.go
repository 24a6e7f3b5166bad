package peertest

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// mostTried is how many of the seeds that failed are looked into: those of one fault tell the same.
const mostTried = 3

// trySchedules runs the faults of seeds that failed with other turns of the goroutines, in a simulator that repeats exactly, until
// one shows what is broken, and logs the pair that repeats it. SIM_SCHEDULES says how many it tries for each seed, 100 if it is
// not set; with 0 it tries none.
func trySchedules(t *testing.T, seeds []uint64) {
	t.Helper()
	schedules := 100
	if text := os.Getenv("SIM_SCHEDULES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			t.Errorf("SIM_SCHEDULES=%s: want a number of schedules", text)
			return
		}
		schedules = n
	}
	if schedules == 0 {
		return
	}
	goCommand := os.Getenv("GO")
	if goCommand == "" {
		goCommand = "go"
	}
	for _, seed := range seeds[:min(len(seeds), mostTried)] {
		cmd := exec.CommandContext(t.Context(), goCommand, "run", ".", "-seed", fmt.Sprint(seed), "-schedules", fmt.Sprint(schedules))
		cmd.Dir = "replay"
		out, err := cmd.CombinedOutput() // an error says that a schedule shows it, as the output does
		t.Logf("seed %d under other schedules (%v):\n%s", seed, err, out)
	}
}
