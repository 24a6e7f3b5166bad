package bench

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain makes the test binary the other process as well: Child starts it in one of these roles.
func TestMain(m *testing.M) {
	played, err := Play(map[string]Role{
		remoteOwner: playRemoteOwner,
		"greets":    func() (string, func(), error) { return "hello there", nil, nil },
		"leaves": func() (string, func(), error) {
			return "about to", func() {
				if err := os.WriteFile(os.Getenv("BENCH_TEST_LEFT"), []byte("left"), 0o600); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}, nil
		},
		"fails": func() (string, func(), error) { return "", nil, fmt.Errorf("this failure is meant") },
	})
	if played {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
