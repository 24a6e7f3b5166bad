package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// errNoPostgres says that PostgreSQL's programs are not installed.
var errNoPostgres = errors.New("PostgreSQL's programs initdb, postgres and psql are not installed: apt-get install postgresql")

// programs returns the folder of PostgreSQL's programs: a folder of $PATH, or the one in which Debian keeps the newest
// version.
func programs() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), dirs...) {
		whole := true
		for _, name := range []string{"initdb", "postgres", "psql"} {
			_, err := exec.LookPath(filepath.Join(dir, name))
			whole = whole && err == nil
		}
		if whole {
			return dir, nil
		}
	}
	return "", errNoPostgres
}

// version returns the 15 of /usr/lib/postgresql/15/bin.
func version(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

// postgres is a temporary server on the loopback interface, with a secret password.
type postgres struct {
	bin, dir, password string
	port               int
	server             *exec.Cmd
	out                *bytes.Buffer // its output; read after exited
	exited             chan struct{}
}

func (p *postgres) url() string {
	return fmt.Sprintf("postgres://outbox:%s@127.0.0.1:%d/postgres?sslmode=disable", p.password, p.port)
}

// startPostgres creates a database in a new folder and waits until the server answers. Stop it.
func startPostgres(ctx context.Context) (p *postgres, err error) {
	p = &postgres{out: new(bytes.Buffer), exited: make(chan struct{})}
	if p.bin, err = programs(); err != nil {
		return nil, err
	}
	if p.dir, err = os.MkdirTemp("", "weir-outbox-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // never fails
	p.password = hex.EncodeToString(secret)
	file := filepath.Join(p.dir, "password")
	if err := os.WriteFile(file, []byte(p.password), 0o600); err != nil {
		return p, err
	}
	as, err := lesser(p.dir, file) // PostgreSQL does not run as root
	if err != nil {
		return p, err
	}
	data := filepath.Join(p.dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "-D", data, "-U", "outbox", "-A", "scram-sha-256",
		"--pwfile", file, "-E", "UTF8", "--locale", "C", "-N")
	initdb.Dir, initdb.SysProcAttr = p.dir, as
	if out, err := initdb.CombinedOutput(); err != nil {
		return p, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if p.port, err = freePort(); err != nil {
		return p, err
	}
	p.server = exec.Command(filepath.Join(p.bin, "postgres"), "-D", data, "-p", strconv.Itoa(p.port), "-h", "127.0.0.1", "-k", "",
		"-c", "fsync=off", "-c", "max_connections=60")
	p.server.Dir, p.server.SysProcAttr, p.server.Stdout, p.server.Stderr = p.dir, as, p.out, p.out
	if err := p.server.Start(); err != nil {
		p.server = nil
		return p, fmt.Errorf("starting postgres: %w", err)
	}
	go func() {
		_ = p.server.Wait()
		close(p.exited)
	}()
	return p, p.wait(ctx)
}

// wait waits until the server answers, for at most 30 seconds.
func (p *postgres) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, p.url())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return fmt.Errorf("postgres ended: %s", p.out)
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w", err)
		}
	}
}

// stop ends the server and removes its folder.
func (p *postgres) stop() error {
	if p.server != nil {
		_ = p.server.Process.Signal(os.Interrupt) // a fast shutdown
		late := time.NewTimer(10 * time.Second)
		defer late.Stop()
		select {
		case <-p.exited:
		case <-late.C:
			_ = p.server.Process.Kill()
			<-p.exited
		}
	}
	return os.RemoveAll(p.dir)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
