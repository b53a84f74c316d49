"""The toy laboratory: networks small enough that every Hessian is dense and every rate can be tried."""
