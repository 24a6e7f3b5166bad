package peertest

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// mostTried is how many failed seeds are investigated: those of one bug show the same thing.
const mostTried = 3

// trySchedules runs the faults of failed seeds with other goroutine schedules, in a simulator that repeats exactly, until
// one shows the violation, and logs the pair that repeats it. SIM_SCHEDULES is how many it tries per seed; unset: 100; 0:
// none.
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
		out, err := cmd.CombinedOutput() // an error means that a schedule shows it, which the output says as well
		t.Logf("seed %d under other schedules (%v):\n%s", seed, err, out)
	}
}
