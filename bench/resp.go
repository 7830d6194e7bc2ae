package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
)

// redisConn speaks as much of Redis' protocol (RESP2) as pipelines of scripts need. One caller at a time.
type redisConn struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

// redisError is an error that Redis answered to one command.
type redisError string

func (e redisError) Error() string { return "redis: " + string(e) }

func dialRedis(ctx context.Context, addr string) (*redisConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &redisConn{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}, nil
}

// add appends a command to the pipeline.
func (c *redisConn) add(args ...string) {
	c.out = append(strconv.AppendInt(append(c.out, '*'), int64(len(args)), 10), "\r\n"...)
	for _, a := range args {
		c.out = append(strconv.AppendInt(append(c.out, '$'), int64(len(a)), 10), "\r\n"...)
		c.out = append(append(c.out, a...), "\r\n"...)
	}
}

// flush sends the pipeline, whose replies are then read one by one. The context's deadline holds for them too.
func (c *redisConn) flush(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// reply reads one reply: a string, an int64, or a []any of them; nothing asked here is answered by nil.
func (c *redisConn) reply() (any, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	kind, text := line[0], bytes.TrimSpace(line[1:])
	switch kind {
	case '+':
		return string(text), nil
	case '-':
		return nil, redisError(text)
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %q", errShape, line)
	}
	switch {
	case kind == ':':
		return n, nil
	case kind == '$' && n >= 0:
		data := make([]byte, n+2)
		_, err := io.ReadFull(c.in, data)
		return string(data[:n]), err
	case kind == '*' && n >= 0:
		all := make([]any, n)
		for i := range all {
			if all[i], err = c.reply(); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("%w: %q", errShape, line)
}

// do sends one command and reads its reply.
func (c *redisConn) do(ctx context.Context, args ...string) (any, error) {
	c.add(args...)
	if err := c.flush(ctx); err != nil {
		return nil, err
	}
	return c.reply()
}
