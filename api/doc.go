// Package api is the API port of a node: Connect, gRPC, gRPC-Web and REST on one listener.
//
// NewHandler joins the services behind it (Deps) to the routes; Serve runs them over TLS. A
// request passes the same steps whatever its protocol: route, identity, role, room in the
// queue, deadline, bounded body, handler, and one error table on the way out. The table of
// procedures says who may call what; the table of reasons says how every error looks.
package api
