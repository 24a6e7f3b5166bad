package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
)

// loadFactor is the number of busy loops per processor.
const loadFactor = 4

// spin keeps one thread busy until ended is set.
func spin(ended *atomic.Bool) {
	runtime.LockOSThread()
	for !ended.Load() {
	}
}

// runLoaded runs a command alongside loadFactor busy loops per processor.
func runLoaded(ctx context.Context, args []string) error {
	n := loadFactor * runtime.NumCPU()
	fmt.Printf("%d busy loops run beside the command\n", n)
	runtime.GOMAXPROCS(runtime.NumCPU() + n)
	var ended atomic.Bool
	var loops sync.WaitGroup
	for range n {
		loops.Go(func() { spin(&ended) })
	}
	defer loops.Wait()
	defer ended.Store(true)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
