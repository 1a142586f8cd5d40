/** Nothing but the defaults; the file tells the tools that this is meant. */
export default {};
