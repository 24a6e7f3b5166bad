// Package server starts the servers that rivals need, on this machine: each on a free port of the loopback, in a
// process that Stop ends. A free port may be taken by another process before the server listens on it, so a server that
// ends at its start is started again, on another port.
package server
